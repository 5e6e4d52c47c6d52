"""The time that importing this provider adds to each parsing of a DAG file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import airflow_provider_lakets
from airflow_provider_lakets.get_provider_info import get_provider_info

PACKAGE = Path(airflow_provider_lakets.__file__).parent
MODULES = sorted(
    module
    for kind in ("operators", "sensors", "triggers")
    for entry in get_provider_info()[kind]
    for module in entry["python-modules"]
)
HEAVY = ("psycopg", "psycopg_pool", "databricks", "fastapi", "pandas", "deltalake", "pyarrow", "requests")
BUDGET = 0.15  # seconds
RUNS = 3  # at most: others depend on how busy the machine is

CODE = """
import importlib, json, sys, time
import airflow.sdk
before, start = set(sys.modules), time.process_time()
for name in sys.argv[1:]:
    importlib.import_module(name)
took = time.process_time() - start
print(json.dumps({"took": took, "loaded": sorted(set(sys.modules) - before)}))
"""


def parse() -> dict[str, Any]:
    """Import all modules after airflow.sdk in a new interpreter; return CPU seconds and modules."""
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a DAG processor has its bytecode
    command = [sys.executable, "-W", "ignore", "-c", CODE, *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def runs() -> list[dict[str, Any]]:
    """Parse until it is quick enough; the first run may have to write the bytecode."""
    made: list[dict[str, Any]] = []
    while len(made) < RUNS and all(run["took"] >= BUDGET for run in made):
        made.append(parse())
    return made


def test_every_operator_is_measured(runs: list[dict[str, Any]]) -> None:
    assert f"{PACKAGE.name}.operators.retention" in MODULES
    assert set(MODULES) <= set(runs[0]["loaded"])


def test_import_loads_nothing_heavy(runs: list[dict[str, Any]]) -> None:
    assert [name for name in runs[0]["loaded"] if name.split(".")[0] in HEAVY] == []


def test_import_costs_a_fraction_of_airflow_s_own(runs: list[dict[str, Any]]) -> None:
    assert runs[-1]["took"] < BUDGET
