"""What goes wrong on the way: a retry cures it, or the task fails at once and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.local.api.faults import FaultName
from tests.e2e.airflow import wait_until
from tests.e2e.lake import LONG

if TYPE_CHECKING:
    from tests.e2e.airflow import Airflow
    from tests.e2e.lake import Lake


def test_a_sleeping_endpoint_and_a_troubled_workspace_are_waited_for(airflow: Airflow, lake: Lake) -> None:
    lake.table("metrics", days=2)
    lake.value("SELECT lakets.set_chunk_interval('metrics', '3 days')")
    lake.fault(FaultName.SUSPENDED, times=2)
    lake.fault(FaultName.MINT_429, times=1)
    lake.fault(FaultName.MINT_500, times=1)

    run = airflow.succeed("lakets_partition_manager")

    (result,) = run.result("ensure_partitions")
    assert result["outcome"] == "created"
    assert run.task("ensure_partitions").tries == 1
    assert lake.cloud.faults() == {}


@pytest.mark.parametrize(
    "fault",
    [pytest.param(FaultName.CUT, marks=pytest.mark.short), FaultName.SHUTDOWN],
    ids=lambda fault: fault.value,
)
def test_a_refresh_that_loses_its_session_midway_is_done_again(
    airflow: Airflow, lake: Lake, fault: FaultName
) -> None:
    lake.table("metrics", days=3, drop=None)
    lake.rollup("hourly", "metrics")
    lake.touch("metrics")
    lake.slow(LONG)

    run = airflow.trigger("lakets_rollup_refresh")
    wait_until(lambda: lake.sleepers() == 1, 60, "the refresh is under way", run.told)
    lake.slow(0)
    lake.fault(fault)
    run.succeed()

    assert "Retrying " in run.log(run.task("refresh"), 1)
    assert lake.wrong_buckets("hourly", "metrics") == []
    wait_until(lambda: not lake.sessions(), 30, "no session is left", lambda: str(lake.sessions()))


def test_a_missing_right_fails_at_the_first_try_and_says_which(airflow: Airflow, lake: Lake) -> None:
    lake.table("metrics", days=2)
    lake.value("SELECT lakets.set_chunk_interval('metrics', '3 days')")
    lake.set_membership(granted=False)
    try:
        run = airflow.trigger("lakets_partition_manager")
        state = run.wait()
    finally:
        lake.set_membership(granted=True)

    task = run.task("ensure_partitions")
    assert (state, task.state, task.tries) == ("failed", "failed", 1)
    # The message is wrapped.
    assert f"the Postgres role '{lake.jobs}' lacks a right" in " ".join(run.log(task).split())


def test_a_missing_function_fails_at_the_first_try_and_says_how_to_install(
    airflow: Airflow, lake: Lake
) -> None:
    lake.table("metrics", days=2)
    lake.admin.execute("ALTER FUNCTION lakets._get_chunks_to_tier RENAME TO _away")
    try:
        run = airflow.trigger("lakets_tiering")
        state = run.wait()
    finally:
        lake.admin.execute("ALTER FUNCTION lakets._away RENAME TO _get_chunks_to_tier")

    task = run.task("candidates")
    assert (state, task.state, task.tries) == ("failed", "failed", 1)
    assert "Run `lakets install`" in run.log(task)
