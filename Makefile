# Every target makes the virtual environment it needs; nothing but python3, venv, make and gcc is assumed.
# No package is taken as already built: pip builds in isolation, with the build tools that each package asks for.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
LOWEST := .venv-lowest
LOWEST_STAMP := $(LOWEST)/.installed
# Bytecode makes every start of Airflow about twice as fast.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-lowest e2e e2e-short compose-test lint format bench clean
help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# Make a virtual environment with one extra: $(call install,folder,constraints,extra). Lists packages as they arrive.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed; $(PYTHON) is older: name another with PYTHON=...")'
	@echo "Setting up $(1) for '$(3)': two to five minutes the first time, most of it downloads"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/pip install --progress-bar off --constraint $(2) --editable '.[$(3)]' \
	    | sed -u -n -e 's/^Collecting /  /p' -e 's/^  Building wheel/  building/p' -e 's/^Installing collected.*/  installing/p'
	@touch $@
endef

$(DEMO_STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,local)

$(STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,dev)
	@touch $(DEMO_STAMP)

$(LOWEST_STAMP): pyproject.toml constraints-lowest.txt
	$(call install,$(LOWEST),constraints-lowest.txt,dev)

demo: $(DEMO_STAMP)  ## run the LakeTS lifecycle on a local Lakebase with real data, through Airflow
	$(BIN)/lakets demo

test: $(STAMP)  ## run the tests
	$(BIN)/pytest -n 2 -m "not slow"

test-lowest: $(LOWEST_STAMP)  ## run the tests of hooks, operators and DAGs on the lowest supported Airflow
	$(LOWEST)/bin/pytest -n 2 -m "not slow" tests/unit tests/dags

# AIRFLOW=3.3 or AIRFLOW=3.1 for one of them; SET=quick leaves out what takes minutes, SET=short takes a few.
AIRFLOW ?= 3.3 3.1
SET ?= full
e2e: $(STAMP) $(if $(filter 3.1,$(AIRFLOW)),$(LOWEST_STAMP))  ## run the system tests: real Airflows, newest and lowest
	$(BIN)/python -m tests.e2e $(AIRFLOW) --set $(SET)

e2e-short:  ## run the few of them that CI runs
	@$(MAKE) --no-print-directory e2e AIRFLOW=3.3 SET=short

compose-test:  ## try docker-compose.yaml end to end on the Docker engine at hand (DOCKER_HOST)
	$(PYTHON) -m tests.compose

lint: $(STAMP)  ## ruff, format check, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff put things right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## measure the engine beside plain Postgres
	$(BIN)/python -m benchmarks

clean:  ## remove what the targets made
	rm -rf $(VENV) $(LOWEST) .lakets dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
