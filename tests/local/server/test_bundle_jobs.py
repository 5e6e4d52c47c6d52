"""The jobs of LakeTS' Databricks bundle run on the local Lakebase, as *airflow-jobs*."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.engine import install_script
from airflow_provider_lakets.local.feed import control
from tests.local.server import bundle_jobs
from tests.superuser import superuser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.client import LocalServer

WORLD = """
CREATE TABLE ticks (ts timestamptz NOT NULL, symbol text NOT NULL, price float8);
INSERT INTO ticks SELECT now() - n * interval '6 hours', 's' || n % 3, n FROM generate_series(0, 60) AS n;
SELECT lakets.create_chronotable('ticks', 'ts', '1 day'), lakets.enable_sync('ticks'),
       lakets.add_tiered_retention_policy('ticks', '2 days', '6 days');
SELECT lakets.create_rollup('hourly', 'SELECT lakets.time_bucket(''1 hour'', ts) AS bucket, count(*) AS n'
                            ' FROM ticks GROUP BY 1', '1 hour', 'ticks');
UPDATE lakets._rollup_registry SET refresh_lag = '0';
INSERT INTO ticks VALUES (now(), 's1', 7);
SELECT lakets.drop_chunks('ticks', '14 days');
"""


@pytest.fixture
def lived_in(server: LocalServer) -> Iterator[LocalServer]:
    """Yield the local Lakebase as the owner leaves it: with LakeTS installed and a table in it."""
    with server.connect(server.state.owner) as conn:
        conn.autocommit = True
        conn.execute(install_script().encode())
        conn.execute(WORLD.encode())
    yield server
    with server.connect(server.state.owner) as conn:
        conn.autocommit = True
        conn.execute("SELECT lakets.drop_chronotable('ticks')")


@pytest.fixture
def identity(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment of the jobs, which is that of *airflow-jobs* and nothing else."""
    jobs = server.state.jobs
    for name in [name for name in os.environ if name.startswith(("DATABRICKS_", "LAKETS_PG", "PG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(server.folder))
    monkeypatch.setenv("DATABRICKS_HOST", server.state.url)
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", jobs.client_id)
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", jobs.client_secret)


def run(server: LocalServer, job: str) -> int:
    """Run a job with a login of its own, and return its count."""
    with bundle_jobs.connect("local", server.state.port) as connection, connection.cursor() as session:
        return bundle_jobs.JOBS[job](session)


def test_all_four_jobs_of_the_bundle_do_their_work(
    lived_in: LocalServer, identity: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = lived_in.state

    assert run(lived_in, "partitions") >= 0
    with monkeypatch.context() as named:
        named.setenv("LAKETS_PG_ROLE", state.jobs.client_id)
        assert run(lived_in, "rollups") == 1
    flagged = 0
    for _ in range(4):
        control.wait_flushed(superuser(lived_in), 60.0, lambda: None)
        flagged += run(lived_in, "tiering")
    dropped = run(lived_in, "retention")

    assert flagged >= 10
    assert dropped >= 5
    with lived_in.connect(state.jobs) as conn:
        row = conn.execute("SELECT min(ts) > now() - interval '8 days' FROM ticks").fetchone()
    assert row == (True,)
