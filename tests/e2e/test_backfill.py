"""`airflow backfill create` on each of the four DAGs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.airflow import Airflow, Run
    from tests.e2e.lake import Lake

HOUR = timedelta(hours=1)


def _backfill(airflow: Airflow, dag_id: str, start: datetime, end: datetime) -> list[Run]:
    """Backfill the logical dates from start to end, and return the runs once all have succeeded."""
    before = {run.run_id for run in airflow.runs(dag_id)}
    dates = ("--from-date", start.isoformat(), "--to-date", end.isoformat())
    airflow.server.command("backfill", "create", "--dag-id", dag_id, *dates)
    runs = [run for run in airflow.runs(dag_id) if run.run_id not in before]
    return [run.succeed() for run in runs]


def test_of_rollups_aggregates_the_intervals_asked_for_again_and_no_others(
    airflow: Airflow, lake: Lake
) -> None:
    lake.table("metrics", days=3, drop=None)
    lake.conn.execute(
        "INSERT INTO metrics SELECT date_trunc('hour', now()) - n * interval '1 hour', 'b', n"
        " FROM generate_series(20, 30) AS n"
    )
    lake.rollup("hourly", "metrics")
    noon = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - 25 * HOUR
    lake.conn.execute("UPDATE public._rollup_hourly SET total = -1")
    wrong = lake.wrong_buckets("hourly", "metrics")

    runs = _backfill(airflow, "lakets_rollup_refresh", noon, noon + HOUR)

    assert len(runs) == 5
    assert {*wrong} - {*lake.wrong_buckets("hourly", "metrics")} == {noon, noon + HOUR}


def test_of_the_partition_manager_makes_the_chunks_of_its_intervals(airflow: Airflow, lake: Lake) -> None:
    lake.table("metrics", days=2)
    start = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=20)
    chunks = "SELECT range_start FROM lakets.show_chunks('metrics') WHERE range_start < %s ORDER BY 1"

    _backfill(airflow, "lakets_partition_manager", start, start + timedelta(hours=24))

    assert lake.column(chunks, start + timedelta(days=5)) == [start, start + timedelta(days=1)]


@pytest.mark.parametrize("dag_id", ["lakets_tiering", "lakets_retention"])
def test_of_tiering_and_retention_is_a_rerun_that_changes_nothing(
    airflow: Airflow, lake: Lake, dag_id: str
) -> None:
    lake.table("metrics", days=6)
    lake.wait_flushed()
    airflow.succeed(dag_id)
    before = lake.column("SELECT chunk_name || status FROM lakets._chunk_metadata ORDER BY 1")
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)

    runs = _backfill(airflow, dag_id, yesterday - timedelta(days=1), yesterday)

    assert len(runs) >= 1
    assert lake.column("SELECT chunk_name || status FROM lakets._chunk_metadata ORDER BY 1") == before
