# Every target makes the virtual environment it needs; nothing but python3, venv, make and gcc is assumed.
# No package is taken as already built: pip builds in isolation, with the build tools that each package asks for.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
# `make test PYTHON=python3.12` runs on that one; VENV=.venv-3.12 keeps the environment beside the usual one.
PYTHON ?= python3
# Part of the stamps' names: with another Python, the environment is made anew.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv
BIN := $(VENV)/bin
DEMO_STAMP := $(VENV)/.installed-local-$(VERSION)
TEST_STAMP := $(VENV)/.installed-test-$(VERSION)
STAMP := $(VENV)/.installed-dev-$(VERSION)
DOCS := .venv-docs
LOWEST := .venv-lowest
LOWEST_STAMP := $(LOWEST)/.installed
LOWEST_PYTHON ?= $(shell .ci/find-python 3.10)
# One more than the cores that they are tuned for: some wait for a server to start or a lock to be given up.
WORKERS ?= 3
# Bytecode makes every start of Airflow about twice as fast.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-dbos test-dbos-version test-python test-postgres test-lowest test-sdist environments environment e2e e2e-short screenshots compose-test lint format docs bench constraints \
    constraints-lowest clean
help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# Make a virtual environment with one extra: $(call install,folder,constraints,extra). Lists packages as they arrive.
# pip compiles on one core only; a few packages have files that are no Python of this version. Where only tests run,
# Python compiles what they import as it goes, which is a sixth of all.
define install
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13) and "Python 3.10 to 3.13 is needed; $(PYTHON) is $(VERSION): name another with PYTHON=...")'
	@echo "Setting up $(1) for '$(3)': two to five minutes the first time, most of it downloads"
	@$(PYTHON) -m venv $(if $(wildcard $(1)/lib/python$(VERSION)),,--clear) $(1)
	@$(1)/bin/pip install --no-compile --progress-bar off --constraint $(2) --editable '.[$(3)]' \
	    | sed -u -n -e 's/^Collecting /  /p' -e 's/^  Building wheel/  building/p' -e 's/^Installing collected.*/  installing/p'
	@$(if $(filter-out test,$(3)),$(1)/bin/python -m compileall -qq -j 0 -x '/tests?/' $(1)/lib || true)
	@touch $@
endef

$(DEMO_STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,local)

$(TEST_STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,test)
	@touch $(DEMO_STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,dev)
	@touch $(DEMO_STAMP) $(TEST_STAMP)

# The lowest versions are those of the lowest Python. Without one, .ci/find-python has said so.
$(LOWEST_STAMP): PYTHON = $(LOWEST_PYTHON)
$(LOWEST_STAMP): VERSION = 3.10
$(LOWEST_STAMP): pyproject.toml constraints-lowest.txt
	$(call install,$(LOWEST),constraints-lowest.txt,test)

# The site needs none of the packages that the project needs: it reads the code without running it.
$(DOCS)/.installed: .ci/site-requirements.txt constraints.txt
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/pip install --quiet --constraint constraints.txt --requirement .ci/site-requirements.txt
	@touch $@

# PYTHONS="3.12 3.13" also makes those for test-python and test-sdist, as .venv-3.12 and .venv-3.13.
environments: $(STAMP) $(LOWEST_STAMP) $(DOCS)/.installed $(PYTHONS:%=environment-%)  ## make all environments; -j for at once
environment-%:
	@$(MAKE) --no-print-directory environment VENV=.venv-$* PYTHON=$$(.ci/find-python $*)
environment: $(TEST_STAMP)

demo: $(DEMO_STAMP)  ## run the LakeTS lifecycle on a local Lakebase with real data, through Airflow
	$(BIN)/lakets demo

test: $(STAMP)  ## run the tests
	$(BIN)/pytest -n $(WORKERS) -m "not slow"

test-dbos: $(STAMP)  ## run all tests with DBOS programs, the slow ones too
	$(BIN)/pytest -n $(WORKERS) -m "slow or not slow" tests/dbos

DBOS ?= 2.8
OLDER := .venv-dbos-$(DBOS)
test-dbos-version: $(STAMP)  ## run a program on another version of DBOS than the tests have: DBOS=2.8
	@$(PYTHON) -m venv $(OLDER)
	@$(OLDER)/bin/pip install --quiet 'dbos==$(DBOS).*' 'psycopg[binary]' databricks-sdk tenacity
	LAKETS_TEST_DBOS=$(abspath $(OLDER))/bin/python $(BIN)/pytest -m slow tests/dbos/test_older_dbos.py

# What may differ on another Python. The rest of tests/dags is about Airflow, which `test` and `test-lowest` have.
ON_PYTHONS := tests/unit tests/dags/test_sample_dags.py
test-python: $(TEST_STAMP)  ## run only the tests of hooks, operators and sample DAGs
	$(BIN)/pytest -n $(WORKERS) -m "not slow" $(ON_PYTHONS)

POSTGRES ?= 17
OF ?= tests/sql
test-postgres: $(TEST_STAMP)  ## run the tests of the SQL engine, or a part OF them, on another Postgres: POSTGRES=17 or 18
	LAKETS_TEST_POSTGRES=$(POSTGRES) $(BIN)/pytest -n $(WORKERS) -m "not slow" $(OF)

test-lowest: $(LOWEST_STAMP)  ## run the tests of hooks, operators and DAGs on the lowest supported Airflow, packages and Python
	$(LOWEST)/bin/pytest -n $(WORKERS) -m "not slow" tests/unit tests/dags

# With a database only the sample DAGs: the other tests with one differ little between Pythons.
test-sdist: $(TEST_STAMP)  ## a part of them from the unpacked source distribution, in a folder of its own
	@rm -rf build/sdist && mkdir -p build/sdist
	$(BIN)/python -m hatchling build --target sdist --directory build/sdist
	tar --extract --file build/sdist/*.tar.gz --directory build/sdist --strip-components 1
	cd build/sdist && PYTHONPATH=$$PWD $(abspath $(BIN))/python -m pytest -n $(WORKERS) -m "not slow and (short or not postgres)" $(ON_PYTHONS)

# AIRFLOW=3.3 or AIRFLOW=3.1 for one of them; SET=quick leaves out what takes minutes, SET=short takes a few.
AIRFLOW ?= 3.3 3.1
SET ?= full
e2e: $(STAMP) $(if $(filter 3.1,$(AIRFLOW)),$(LOWEST_STAMP))  ## run the system tests: real Airflows, newest and lowest
	$(BIN)/python -m tests.e2e $(AIRFLOW) --set $(SET)

screenshots: $(STAMP)  ## take the pictures of the documentation, of a real Airflow at work
	$(BIN)/pytest tests/e2e/page/pictures.py

e2e-short: $(STAMP)  ## run the few of them that CI runs
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

docs: $(DOCS)/.installed  ## build the site of the documentation into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build

bench: $(STAMP)  ## measure the engine beside plain Postgres
	$(BIN)/python -m benchmarks

# Pins stay as they are where pyproject.toml allows; UPGRADE=--upgrade takes the newest of all.
UV := .venv-uv/bin/uv
RESOLVE := $(UV) pip compile --quiet --python-version 3.10 --strip-extras --no-annotate
constraints: $(UV)  ## resolve constraints.txt, for every supported Python
	$(RESOLVE) pyproject.toml .ci/site-requirements.txt --extra dev --universal $(UPGRADE) --custom-compile-command "make $@" --output-file $@.txt

# Airflow 3.1.0 does not start with a newer structlog, though it allows it; a newer fastapi-cli would raise typer, and
# click 8.5 warns of what older typers use.
constraints-lowest: $(UV)  ## resolve constraints-lowest.txt, the lower bounds of pyproject.toml on the lowest Python
	@: > $@.txt
	printf '%s\n' 'structlog<25.5' 'fastapi-cli<0.0.20' 'click<8.5' | $(RESOLVE) pyproject.toml --constraint - --extra test \
	    --resolution lowest-direct --custom-compile-command "make $@" --output-file $@.txt

$(UV):
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/pip install --quiet uv

clean:  ## remove what the targets made
	rm -rf $(VENV) .venv-* .lakets dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
