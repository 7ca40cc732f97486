# Every target sets up what it needs, on a machine with Python >= 3.11 (with pip) and make.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test compiled test-fast storm lint format bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## create the virtual environment with everything, from uv.lock

$(READY): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Mainspring needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	@test -x $(RUN)/uv || { $(PYTHON) -m venv $(VENV) && $(RUN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'; }
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(RUN)/uv sync --frozen --quiet --inexact --all-extras --no-extra ray --no-extra explain --python $(RUN)/python --compile-bytecode
	@touch $@

demo: $(READY) ## replay a year of real flights through the whole loop
	@$(RUN)/mainspring demo

# In the order of the folders: what takes minutes is in acceptance, and the units at the end keep every core at work.
test: $(READY) compiled ## every test
	@$(RUN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Tests start hundreds of processes; where PYTHONDONTWRITEBYTECODE is set, each would compile all that it imports.
compiled: $(READY)
	@$(RUN)/python -m compileall -q src

test-fast: $(READY) ## tests without I/O
	@$(RUN)/python -m pytest tests/unit -n auto

storm: $(READY) compiled ## the long storms: kills and load, seeded
	@$(RUN)/python -m pytest -m storm

lint: $(READY) ## style, types, import contracts, size of modules and functions, import budgets
	@$(RUN)/ruff check --quiet .
	@$(RUN)/ruff format --check --quiet .
	@$(RUN)/mypy
	@$(RUN)/lint-imports --no-cache > /dev/null || $(RUN)/lint-imports --no-cache
	@$(RUN)/python tests/lint/house_rules.py

format: $(READY) ## put the code into the house's form
	@$(RUN)/ruff check --fix --quiet .
	@$(RUN)/ruff format --quiet .

bench: $(READY) ## every figure that the documentation claims, side by side with its limit
	@$(RUN)/python -m benchmarks

clean: ## remove what the targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
