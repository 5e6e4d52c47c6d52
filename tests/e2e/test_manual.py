"""Manual runs with params: a dry run, and retention by force after an approval."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.local.api.faults import FaultName
from tests.e2e.airflow import wait_until

if TYPE_CHECKING:
    from tests.e2e.airflow import Airflow, Run
    from tests.e2e.lake import Lake


def _chunks(lake: Lake) -> list[str]:
    return lake.column("SELECT chunk_name || status FROM lakets._chunk_metadata ORDER BY 1")


def _answer(run: Run, answer: str) -> None:
    """Wait until an approval is asked for, and give the answer."""
    run.wait_for("approve_force", ["deferred", "awaiting_input"])
    # To an answer that comes before it has noticed that the task has left its worker, the scheduler
    # of Airflow 3.3 takes the task for lost, and starts it again.
    log = run.airflow.home / "scheduler.log"
    noticed = re.compile(f"Received executor event.*'approve_force'.*{re.escape(run.run_id)}")
    wait_until(lambda: noticed.search(log.read_text()), 30, "the scheduler has noticed", run.told)
    path = f"{run.path}/taskInstances/approve_force/-1/hitlDetails"
    run.airflow.call("PATCH", path, {"chosen_options": [answer], "params_input": {}})


@pytest.mark.parametrize("dag_id", ["lakets_partition_manager", "lakets_tiering", "lakets_retention"])
def test_a_dry_run_tells_what_would_happen_and_changes_nothing(
    airflow: Airflow, lake: Lake, dag_id: str
) -> None:
    lake.table("metrics", days=6)
    lake.value("SELECT lakets.set_chunk_interval('metrics', '3 days')")
    lake.wait_flushed()
    before = _chunks(lake)

    run = airflow.succeed(dag_id, dry_run=True)

    last = "ensure_partitions" if dag_id == "lakets_partition_manager" else "summary"
    assert "planned" in str(run.result(last))
    assert _chunks(lake) == before


@pytest.mark.parametrize("answer", ["Approve", "Reject"])
def test_force_drops_what_is_not_durable_only_when_approved(
    airflow: Airflow, lake: Lake, answer: str
) -> None:
    lake.table("metrics", days=6)
    lake.wait_flushed()
    lake.fault(FaultName.FEED_PAUSED)
    lake.touch("metrics")

    run = airflow.trigger("lakets_retention", force=True, tables=["public.metrics"])
    _answer(run, answer)
    run.succeed()

    assert bool(lake.chunks("metrics", "dropped")) is (answer == "Approve")
