"""The demo with a whole Airflow of its own."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.local.demo import run_demo
from airflow_provider_lakets.local.demo.airflow.runs import AirflowClient
from airflow_provider_lakets.local.demo.airflow.server import sample_dags
from airflow_provider_lakets.local.demo.errors import DemoError
from tests.demo import SMALL, processes_of, text, told

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "PGSERVICE": "nowhere",
    "PGOPTIONS": "-c DateStyle=SQL,DMY",
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "DATABRICKS_HOST": "https://nowhere.invalid",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set an environment that leads to other servers, and a locale without UTF-8."""
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value)


class FailingFirst(AirflowClient):
    """Runs a DAG that fails before those of the demo, and keeps the error."""

    error: DemoError | None = None

    def wait_ready(self) -> None:
        super().wait_ready()
        try:
            self.run("failing")
        except DemoError as err:
            FailingFirst.error = err


def with_a_failing_dag(folder: Path) -> Path:
    """Copy the sample DAGs, and put one beside them that has a connection nobody defined."""
    shutil.copytree(sample_dags(), folder)
    install = (folder / "lakets_install.py").read_text()
    failing = install.replace("lakets_install", "failing").replace(
        'LakeTSInstallOperator(task_id="install")',
        'LakeTSInstallOperator(task_id="install", lakebase_conn_id="x")',
    )
    (folder / "failing.py").write_text(failing)
    return folder


@pytest.mark.short
def test_ends_with_ok_wherever_the_environment_leads_and_tells_the_cause_of_a_dag_that_fails(
    temp: Path, elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One demo for both: a whole Airflow is the dearest thing that a test can start.
    dags = with_a_failing_dag(temp / "dags")
    monkeypatch.setattr("airflow_provider_lakets.local.demo.run.sample_dags", lambda: dags)
    monkeypatch.setattr("airflow_provider_lakets.local.demo.run.AirflowClient", FailingFirst)
    console = told()

    code = run_demo(SMALL, console=console)

    lines = text(console).splitlines()
    assert (code, lines[-1]) == (0, "demo: OK"), text(console)
    assert max(len(line) for line in lines) <= 80
    assert list(temp.glob("lakets-*")) == []
    assert processes_of(temp) == []
    what, _, cause = str(FailingFirst.error).partition("\nTask install: ")
    assert what == "DAG failing failed."
    assert "'x'" in cause
