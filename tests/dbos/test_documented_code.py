"""The code of docs/dbos.md runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from dbos import DBOS
from psycopg import sql

from airflow_provider_lakets.dbos.hook import LOWEST_DBOS
from tests.dbos.conftest import session_url
from tests.superuser import superuser

if TYPE_CHECKING:
    from airflow_provider_lakets.local.client import LocalServer

DOCUMENT = (Path(__file__).parents[2] / "docs" / "dbos.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


# Appended to the documented program: a workflow, and how it is looked at.
LOOK = """
@DBOS.workflow()
def greet(): return "hello"

assert greet() == "hello"
assert DBOS.list_workflows(status="PENDING", limit=10) == []
print([one.output for one in DBOS.list_workflows(status="SUCCESS", sort_desc=True)])
DBOS.destroy()
"""
NAME, MORE = '"name": "shop",', '"name": "shop", "log_level": "ERROR", "application_version": "9",'


@pytest.fixture(scope="module")
def ran(lake: LocalServer) -> subprocess.CompletedProcess[str]:
    """Run the documented program, and return its result."""
    # In a database of its own: its version would be the latest one for the program of the other
    # tests.
    with lake.connect() as conn:
        conn.execute("CREATE DATABASE documented")
    where = session_url(lake).replace("/databricks_postgres", "/documented")
    (program,) = [block for block in BLOCKS if "DBOS.launch()" in block]
    return subprocess.run(
        [sys.executable, "-c", f"{program.replace(NAME, MORE)}{LOOK}"],
        env={**os.environ, **lake.env(), "DBOS_SYSTEM_DATABASE_URL": where},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_program_starts(ran: subprocess.CompletedProcess[str]) -> None:
    assert (ran.returncode, ran.stdout.strip().splitlines()[-1:]) == (0, ["['hello']"]), ran.stderr
    assert "INFO" not in ran.stdout + ran.stderr


def test_the_system_tables_are_emptied_for_a_test(
    lake: LocalServer,
    ran: subprocess.CompletedProcess[str],
    native_url: str,
    admin: psycopg.Connection,
) -> None:
    role = native_url.partition("//")[2].partition(":")[0]
    owner = sql.Identifier(lake.state.owner.client_id)
    admin.execute(sql.SQL("GRANT {} TO {}").format(owner, sql.Identifier(role)))

    DBOS.reset_system_database(
        system_database_url=native_url.replace("/databricks_postgres", "/documented"), truncate=True
    )

    with psycopg.connect(superuser(lake), dbname="documented") as conn:
        left = conn.execute("SELECT count(*) FROM dbos.workflow_status").fetchone()
    assert ran.returncode == 0
    assert left == (0,)


@pytest.mark.parametrize("block", [block for block in BLOCKS if "DBOS.launch()" not in block])
def test_the_tasks_are_made(block: str) -> None:
    from airflow.sdk import DAG

    with DAG("shop") as dag:
        exec(block)

    assert dag.tasks


def test_every_pattern_of_the_table_is_run_by_a_test_that_is_there() -> None:
    rows = re.findall(r"^\|.*\| `(test_\w+)` \|$", DOCUMENT, re.MULTILINE)
    there = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))

    assert len(rows) > 20
    assert [name for name in rows if f"def {name}(" not in there] == []


def test_the_extra_asks_for_the_version_that_the_hook_needs() -> None:
    lowest = ".".join(map(str, LOWEST_DBOS))

    assert f'dbos = ["dbos>={lowest}"]' in (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f"| {lowest} and later |" in DOCUMENT
