"""The retry policy as Airflow calls it, for tasks that use the hooks directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import airflow
import pytest
from airflow.sdk import task
from packaging.version import Version

from airflow_provider_lakets.exceptions import LakeTSError, LakeTSNotInstalledError
from airflow_provider_lakets.retries import LakeTSRetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from tests.dags.conftest import Run

    RunDag = Callable[[DAG], Run]

HAS_POLICIES = Version(airflow.__version__) >= Version("3.3")


@pytest.mark.parametrize(
    ("error", "tries"),
    [(LakeTSNotInstalledError, 1 if HAS_POLICIES else 2), (LakeTSError, 2)],
    ids=["a retry cannot fix", "unknown"],
)
def test_policy_in_default_args_decides_for_any_task(
    dag: DAG, run: RunDag, error: type[Exception], tries: int
) -> None:
    dag.default_args["retry_policy"] = LakeTSRetryPolicy()  # Airflow 3.1 ignores it

    @task
    def fail() -> None:
        raise error("on purpose")

    with dag:
        fail()

    done = run(dag)

    assert (done.state, done.tries["fail"]) == ("failed", tries)
