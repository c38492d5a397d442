# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo check test bench clean

## Score examples/reviews.csv with the built-in model and show the result.
demo: $(VENV)/.batch
	$(BIN)/mlopsdeploy batch examples/reviews.csv
	@echo
	@$(BIN)/python examples/show.py examples/reviews.predictions.csv

## Format, lint, types, import contracts.
check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## Everything else that must hold.
test: $(VENV)/.dev
	$(BIN)/pytest

## Speed, as ratios within one run; see benchmarks/README.md.
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/batch.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/edge.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/.batch: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[batch]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --group dev
	$(BIN)/python -m pip install --quiet --editable '.[batch,serve,edge,package,report,int8,postgresql,duckdb,s3,ray,torch,tensorflow]'
	@touch $@ $(VENV)/.batch
