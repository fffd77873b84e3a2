"""One file per architecture family; `pyramid.py` is the contract that they share."""
