# make train: a network on real images, exported. make test: the test suite.
PYTHON ?= python3
VENV ?= .venv
RUN = runs/digits_resnet20

.PHONY: train test lint pictures clean

train: $(VENV)/.installed
	$(VENV)/bin/python train.py --flagfile=configs/digits_resnet20.flags --run_dir=$(RUN) --resume
	$(VENV)/bin/python export.py --run_dir=$(RUN)

test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest --numprocesses=2 --dist=loadfile

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

pictures: $(VENV)/.installed
	$(VENV)/bin/python docs/draw_units.py
	$(VENV)/bin/python docs/draw_gallery.py

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(None if (3, 11) <= v <= (3, 13) else \
	  "Python 3.11, 3.12 or 3.13 is needed. Received: %d.%d. Use make PYTHON=..." % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@
