"""
Programs on other versions of DBOS than the tests use: ``make test-dbos-version DBOS=2.8``.

``LAKETS_TEST_DBOS`` names a Python with that DBOS; by default it is the Python of the tests.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.dbos import create_lakebase_engine

if TYPE_CHECKING:
    from airflow_provider_lakets.local.client import LocalServer
    from tests.dbos.conftest import Effects

PYTHON = os.environ.get("LAKETS_TEST_DBOS", sys.executable)
PROGRAM = Path(__file__).with_name("older") / "program.py"

_numbers = itertools.count()


def run(url: str, schema: str, die_in: int) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "DBOS_SYSTEM_DATABASE_URL": url,
        "APP_SCHEMA": schema,
        "PYTHONPATH": str(PROGRAM.parents[3]),
    }
    return subprocess.run(
        [PYTHON, str(PROGRAM), str(die_in)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_a_program_starts_and_goes_on_where_it_was_killed(url: str, effects: Effects) -> None:
    schema = f"older_{next(_numbers)}"

    killed = run(url, schema, 3)
    done = run(url, schema, 0)

    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"sum": 15, "doubled": [0, 2, 4]}
    assert effects.of(schema) == [1, 2, 3, 3, 4, 5]


def test_the_owner_may_create_the_extension_that_2_x_asks_for(lake: LocalServer, url: str) -> None:
    with lake.connect() as conn:
        conn.execute("CREATE DATABASE with_uuids")
    for database in ("databricks_postgres", "with_uuids"):
        engine = create_lakebase_engine(url.replace("databricks_postgres", database))
        with engine.begin() as session:
            session.exec_driver_sql('CREATE EXTENSION IF NOT EXISTS "uuid-ossp"')
            made = session.exec_driver_sql("SELECT uuid_generate_v4() <> uuid_generate_v4()").scalar_one()
        engine.dispose()
        assert made
