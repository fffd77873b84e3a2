# `make demo` trains a detector on drawn shapes, `make test` runs the tests; both set up .venv on first use.

PYTHON ?= python3
CONFIG ?= configs/maskrcnn_conv2former_n_shapes.py
WORK_DIR ?= work_dirs/$(basename $(notdir $(CONFIG)))
# Further arguments: of tools/train.py for `demo`, of pytest for `test`.
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test clean

demo: $(VENV)/.demo
	$(BIN)/python tools/train.py $(CONFIG) --work-dir $(WORK_DIR) $(ARGS)
	$(BIN)/python tools/demo.py $(WORK_DIR)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# Stamps: the set-up is done again only when setup.py changes.
$(VENV)/.demo: setup.py
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed, this is %s: make PYTHON=/path/to/python3" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install 'pip>=22'
	$(BIN)/python -m pip install -e '.[openmmlab]'
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install -e '.[openmmlab,transfer,ray,slurm,test]'
	touch $@

clean:
	rm -rf $(VENV)
