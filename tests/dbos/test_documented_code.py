"""The code of docs/dbos.md runs as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from airflow_provider_lakets.dbos.hook import LOWEST_DBOS

if TYPE_CHECKING:
    import psycopg

    from airflow_provider_lakets.local.client import LocalServer

DOCUMENT = (Path(__file__).parents[2] / "docs" / "dbos.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_program_starts(
    lake: LocalServer, url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a database of its own: its version would be the latest one for the program of the other
    # tests.
    owner = sql.Identifier(lake.state.owner.client_id)
    admin.execute(sql.SQL("CREATE DATABASE documented OWNER {}").format(owner))
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", url.replace("/databricks_postgres", "/documented"))
    (program,) = [block for block in BLOCKS if "DBOS.launch()" in block]

    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint(DBOS.list_workflows())\nDBOS.destroy()"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stdout.strip().splitlines()[-1:]) == (0, ["[]"]), done.stderr


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
