# Both commands set up everything they need; the first run downloads PyTorch's CPU build.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test clean

demo:  ## a phantom study made on the spot, and the self-check of the networks
	$(PYTHON) tools/setup.py --venv $(VENV)
	$(BIN)/jcs demo -o demo-out --overwrite

test:  ## lint, types, and the whole test suite with branch coverage
	$(PYTHON) tools/setup.py --venv $(VENV) --dev
	$(BIN)/python tools/check.py

clean:
	rm -rf $(VENV) demo-out dist build .coverage* .mypy_cache .ruff_cache .pytest_cache
