# Both commands set up everything they need; the first run downloads PyTorch's CPU build.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test docs clean

demo:  ## two phantom chests made on the spot and diagnosed, and the self-check of the networks
	$(PYTHON) tools/setup.py --venv $(VENV)
	$(BIN)/jcs demo -o demo-out --overwrite

test:  ## programs that some tests need (as root, on Debian), lint, types, and the whole test suite with branch coverage
	bash tools/system.sh
	$(PYTHON) tools/setup.py --venv $(VENV) --dev
	$(BIN)/python tools/check.py

docs:  ## the documentation site, into site/
	$(PYTHON) tools/setup.py --venv $(VENV) --dev
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) demo-out dist build site .coverage* .mypy_cache .ruff_cache .pytest_cache
