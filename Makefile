# Everything that a fresh machine needs: Python 3.11 or newer, a C++ compiler (for torch.compile) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
SLOW := test-slow-adapters test-slow-core test-slow-events test-slow-lab test-slow-snn

.PHONY: demo test test-slow $(SLOW) test-slow-others lint docs format wheel clean

demo: $(INSTALLED)  ## Train the digits study: a spiking ResNet with and without gradient scaling, four seeds each
	$(BIN)/tracegrad study digits

test: lint docs $(READY)  ## Everything that CI runs: style, types, import order, documentation, tests
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=worksteal

test-slow: $(SLOW) test-slow-others  ## What takes minutes, a browser, or a compiler: not part of `make test`

$(SLOW): test-slow-%: $(READY)  ## A part of it, side by side with others by `make -j2 test-slow`
	$(BIN)/python -m pytest -m slow tests/$*

test-slow-others: $(READY)
	$(BIN)/python -m pytest -m slow tests $(SLOW:test-slow-%=--ignore=tests/%)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --project pyproject.toml
	$(BIN)/lint-imports

docs: $(READY)  ## The documentation as a site that works without a network: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(READY)
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist site

$(INSTALLED): pyproject.toml  # what trains: the extra lab
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tracegrad needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable '.[lab]'
	touch $@

$(READY): $(INSTALLED)  # what tests, and builds the documentation
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps 'sinabs>=3'  # it holds nir back: see pyproject.toml
	touch $@
