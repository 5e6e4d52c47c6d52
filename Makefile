# Every target makes the virtual environment it needs; nothing but python3, make and gcc is assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOWEST := .venv-lowest
# Bytecode makes every start of Airflow about twice as fast.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-lowest e2e e2e-short compose-test lint format bench clean
help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): about two minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt hatchling editables
	$(BIN)/pip install --quiet --no-build-isolation --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)  ## run the LakeTS lifecycle on a local Lakebase with real data, through Airflow
	$(BIN)/lakets demo

test: $(STAMP)  ## run the tests
	$(BIN)/pytest -n 2 -m "not slow"

test-lowest: $(LOWEST)/.installed  ## run the tests of hooks, operators and DAGs on the lowest supported Airflow
	$(LOWEST)/bin/pytest -n 2 -m "not slow" tests/unit tests/dags

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	@echo "Setting up $(LOWEST): about two minutes the first time"
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --constraint constraints-lowest.txt hatchling editables
	$(LOWEST)/bin/pip install --quiet --no-build-isolation --constraint constraints-lowest.txt --editable '.[dev]'
	touch $@

# AIRFLOW=3.3 or AIRFLOW=3.1 for one of them; SET=quick leaves out what takes minutes, SET=short takes a few.
AIRFLOW ?= 3.3 3.1
SET ?= full
e2e: $(STAMP) $(if $(filter 3.1,$(AIRFLOW)),$(LOWEST)/.installed)  ## run the system tests: real Airflows, newest and lowest
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
