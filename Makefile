# make train: a network on real images, exported; make train GPU=1 on an NVIDIA GPU.
# make test: the test suite.
PYTHON ?= python3
VENV ?= .venv
RUN = runs/digits_resnet20
GPU ?=
KIND = $(if $(GPU),-gpu)

.PHONY: train test lint pictures clean

train: $(VENV)/.installed$(KIND)
	$(VENV)/bin/python train.py --recipe=digits_resnet20 --run_dir=$(RUN) --resume
	$(VENV)/bin/python export.py --run_dir=$(RUN)

test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest --numprocesses=3 --dist=loadfile

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

pictures: $(VENV)/.installed$(KIND)
	$(VENV)/bin/python docs/draw_units.py
	$(VENV)/bin/python docs/draw_gallery.py

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(None if (3, 11) <= v <= (3, 13) else \
	  "Python 3.11, 3.12 or 3.13 is needed. Received: %d.%d. Use make PYTHON=..." % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed$(KIND): requirements$(KIND).txt requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --requirement requirements$(KIND).txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed$(KIND)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@
