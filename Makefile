# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Neighbours share a process and so their fixtures, until a process with nothing left to do takes
# half of what another has. More than four would want more memory than most machines have.
PARALLEL := -n auto --maxprocesses 4 --dist worksteal
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What the tests need of mlopsdeploy's extras.
EXTRAS := batch,serve,edge,mqtt,package,excel,report,int8,postgresql,duckdb,s3,ray,torch,tensorflow

.PHONY: demo check test test-all dist test-wheel bench clean

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
	$(BIN)/pytest $(PARALLEL)

## The same with every seed, size and moment of a kill, of which `make test` takes some.
test-all: $(VENV)/.dev
	$(BIN)/pytest $(PARALLEL) --all

## Wheel and sdist in dist/, the wheel made from the sdist; checked.
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

## The tests against the installed wheel: in an environment of its own, beside no source tree.
test-wheel: dist
	rm -rf build/wheel
	mkdir -p build/wheel/source
	tar -xzf dist/*.tar.gz -C build/wheel/source --strip-components=1
	rm -rf build/wheel/source/mlopsdeploy
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/wheel/venv/bin/python -m pip install --quiet --group build/wheel/source/pyproject.toml:dev
	build/wheel/venv/bin/python -m pip install --quiet "$$(ls dist/*.whl)[$(EXTRAS)]"
	cd build/wheel/source && ../venv/bin/python -c \
		"import mlopsdeploy; assert 'site-packages' in mlopsdeploy.__file__, mlopsdeploy.__file__"
	cd build/wheel/source && ../venv/bin/pytest $(PARALLEL)

## Speed, as ratios within one run; see benchmarks/README.md.
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/batch.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/serve_under_fire.py
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
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.batch
