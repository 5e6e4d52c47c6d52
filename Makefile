# Every target makes the virtual environment it needs; nothing but python3, make and gcc is assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOWEST := .venv-lowest
# Bytecode makes every start of Airflow about twice as fast.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-lowest compose-test lint format bench clean
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

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
