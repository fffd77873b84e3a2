"""One file per architecture family; `pyramid.py` is the contract that they share."""

from .conv2former import Conv2Former
from .pyramid import PyramidBackbone

__all__ = ['Conv2Former', 'PyramidBackbone']
