"""Waiting in the triggerer, which is killed and replaced meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.local.api.faults import FaultName
from tests.e2e.airflow import wait_until

if TYPE_CHECKING:
    from tests.e2e.airflow import Airflow, Run
    from tests.e2e.lake import Lake


def _looks(run: Run) -> str:
    """Return what triggers have written into the logs of a run's tasks."""
    return "".join(log.read_text() for log in run.logs.rglob("*.trigger.*"))


def _wait_in_vain(run: Run, task_id: str) -> None:
    """Return once a trigger has looked, and found that the feed has not caught up."""
    run.wait_for(task_id, ["deferred"])
    wait_until(lambda: "Waiting for" in _looks(run), 60, "the trigger has looked", run.told)


@pytest.mark.short
def test_deferred_tiering_flags_when_the_feed_has_caught_up(airflow: Airflow, lake: Lake) -> None:
    lake.table("metrics", days=6, drop=None)
    lake.wait_flushed()
    lake.fault(FaultName.FEED_PAUSED)
    lake.touch("metrics")
    due = lake.candidates("metrics")

    run = airflow.trigger("e2e_waiting_tiering")
    _wait_in_vain(run, "tier")
    before = lake.chunks("metrics", "tiered")
    lake.cloud.clear_faults()
    run.succeed()

    assert before == []
    assert lake.chunks("metrics", "tiered") == due
    assert run.task("tier").tries == 1


@pytest.mark.parametrize("dag_id", ["e2e_waiting_tiering", "e2e_waiting_retention"])
def test_a_deferred_task_outlives_a_killed_triggerer(airflow: Airflow, lake: Lake, dag_id: str) -> None:
    task_id, status = ("tier", "tiered") if dag_id == "e2e_waiting_tiering" else ("drop_expired", "dropped")
    lake.table("metrics", days=6)
    lake.wait_flushed()
    lake.fault(FaultName.FEED_PAUSED)
    lake.touch("metrics")
    rows = lake.rows("metrics")

    run = airflow.trigger(dag_id)
    _wait_in_vain(run, task_id)
    airflow.server.kill("triggerer")
    before = lake.chunks("metrics", status)
    lake.cloud.clear_faults()
    lake.wait_flushed()
    airflow.server.launch("triggerer")
    run.succeed()

    assert before == []
    assert len(lake.chunks("metrics", status)) >= 2
    assert lake.rows_in_delta("metrics") == rows
    assert run.task(task_id).tries == 1
