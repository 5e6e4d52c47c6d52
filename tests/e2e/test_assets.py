"""A DAG that is scheduled on a RollUp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.airflow import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.airflow import Airflow
    from tests.e2e.lake import Lake

OTHERS = ("lakets_partition_manager", "lakets_tiering", "lakets_retention")


@pytest.fixture
def scheduling(airflow: Airflow) -> Iterator[None]:
    """Let the scheduler start runs by itself, but only those of the DAGs that matter here."""
    for dag_id in OTHERS:
        airflow.pause(dag_id)
    airflow.server.kill("scheduler")
    airflow.server.launch("scheduler", AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE="True")
    yield
    airflow.server.kill("scheduler")
    airflow.server.launch("scheduler")
    for dag_id in OTHERS:
        airflow.pause(dag_id, paused=False)


@pytest.mark.usefixtures("scheduling")
def test_a_dag_scheduled_on_a_rollup_runs_after_a_refresh(airflow: Airflow, lake: Lake) -> None:
    lake.table("metrics", days=3, drop=None)
    lake.rollup("watched", "metrics")
    lake.rollup("other", "metrics")
    assert airflow.runs("e2e_downstream") == []
    lake.touch("metrics")

    airflow.succeed("lakets_rollup_refresh")
    wait_until(lambda: airflow.runs("e2e_downstream"), 60, "the DAG downstream runs", airflow.tail)

    (run,) = airflow.runs("e2e_downstream")
    (extra,) = run.succeed().result("told")
    assert extra["rollup"] == "watched"
