"""The sample DAGs, as they are, on a real scheduler."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.airflow import Airflow
    from tests.e2e.lake import Lake

JOBS = ("lakets_partition_manager", "lakets_rollup_refresh", "lakets_tiering", "lakets_retention")


@pytest.mark.short
def test_each_sample_dag_runs_green_and_does_its_job(airflow: Airflow, lake: Lake) -> None:
    lake.table("metrics", days=6)
    lake.rollup("hourly", "metrics")
    lake.touch("metrics")
    rows = lake.rows("metrics")
    lake.value("SELECT lakets.set_chunk_interval('metrics', '3 days')")  # more is to be made ahead
    lake.wait_flushed()

    for dag_id in ("lakets_install", *JOBS):
        airflow.succeed(dag_id)

    dropped, tiered = lake.chunks("metrics", "dropped"), lake.chunks("metrics", "tiered")
    assert airflow.broken_dags() == []
    (ahead,) = lake.column("SELECT max(range_start) - now() FROM lakets.show_chunks('metrics')")
    assert ahead > timedelta(days=6)
    assert (bool(dropped), bool(tiered)) == (True, True)
    assert lake.rows("metrics") < rows == lake.rows_in_delta("metrics")
    oldest = lake.value("SELECT date_trunc('day', min(at)) FROM metrics")
    assert lake.wrong_buckets("hourly", "metrics", since=str(oldest)) == []


@pytest.mark.short
def test_a_mapped_task_for_each_batch_is_named_after_its_chunks(airflow: Airflow, lake: Lake) -> None:
    lake.table("metrics", days=30, drop=None)
    lake.wait_flushed()
    due = lake.candidates("metrics")

    run = airflow.succeed("lakets_tiering")

    names = [task.name for task in run.tasks("tier")]
    assert len(due) > 20
    assert names == [f"{due[0]} and 19 more", f"{due[20]} and {len(due) - 21} more"]
    assert [len(batch) for batch in run.results("tier")] == [20, len(due) - 20]
    assert lake.chunks("metrics", "tiered") == due


def test_nothing_to_do_is_a_clean_skip(airflow: Airflow, lake: Lake) -> None:
    runs = {dag_id: airflow.succeed(dag_id).states() for dag_id in JOBS}

    assert runs["lakets_tiering"]["tier"] == {"skipped"}
    assert runs["lakets_retention"]["drop_expired"] == {"skipped"}


@pytest.mark.parametrize("dag_id", JOBS)
def test_a_cleared_run_ends_in_the_same_state(airflow: Airflow, lake: Lake, dag_id: str) -> None:
    lake.table("metrics", days=6)
    lake.rollup("hourly", "metrics")
    lake.touch("metrics")
    lake.wait_flushed()
    run = airflow.succeed(dag_id)
    before = _state(lake)

    run.clear().succeed()

    assert all(task.tries > 1 for task in run.tasks() if task.state == "success")
    assert _state(lake) == before


def _state(lake: Lake) -> dict[str, object]:
    """Return all that a job might have changed twice."""
    return {
        "chunks": lake.column("SELECT chunk_name || status FROM lakets._chunk_metadata ORDER BY 1"),
        "partitions": lake.partitions("metrics"),
        "rows": lake.column("SELECT metrics::text FROM metrics ORDER BY at"),
        "rollup": lake.column("SELECT r::text FROM public._rollup_hourly AS r ORDER BY bucket"),
        "delta": lake.rows_in_delta("metrics"),
    }
