"""The demo on three weeks of data: its success, its failures, and what it leaves behind."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from rich.console import Console

from airflow_provider_lakets.local.demo import run_demo
from airflow_provider_lakets.local.demo.airflow.runs import AirflowClient
from airflow_provider_lakets.local.demo.airflow.server import sample_dags
from airflow_provider_lakets.local.demo.errors import DemoError
from airflow_provider_lakets.local.demo.signals import stoppable
from tests.demo import SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator

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
def temp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let the demo put its folder here, so that the test can see what is left."""
    # Not pytest's own: its path is too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="lakets-"))
    monkeypatch.setattr("airflow_provider_lakets.local.demo.run._temp_dir", lambda: str(folder))
    yield folder
    shutil.rmtree(folder)


def told() -> Console:
    return Console(file=io.StringIO(), width=80, highlight=False)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def processes_of(folder: Path) -> list[str]:
    """Return the processes that use a folder, by their arguments or their environment."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        known = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
        if any(f"{folder}/lakets-demo" in value for value in known):
            found.append(" ".join(process.info["cmdline"]))
    return found


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


def test_what_fails_is_told_in_a_sentence_and_its_log_is_kept(
    temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        assert processes_of(temp) != []
        raise DemoError("DAG lakets_install failed.\nTask install: no such thing.")

    monkeypatch.setattr("airflow_provider_lakets.local.demo.run.AirflowServer", fail)
    console = told()

    code = run_demo(SMALL, console=console)

    (left,) = temp.glob("lakets-demo-*")
    assert code == 1
    assert "demo: DAG lakets_install failed.\nTask install: no such thing.\n" in text(console)
    assert "Traceback" not in text(console)
    assert "Traceback" in (left / "demo.log").read_text()
    assert str(left) in text(console)
    assert processes_of(temp) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda one: one.name)
def test_the_first_signal_interrupts_and_none_after_it(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    with stoppable(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    with stoppable() as stop:
        stop.ignore()
        signal.raise_signal(number)

    assert signal.getsignal(number) == before


@pytest.fixture
def starting(temp: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield a demo in its own process, whose Lakebase runs and whose Airflow is starting."""
    script = (
        "import sys; from airflow_provider_lakets.local.demo import run_demo; from tests.demo import SMALL;"
        "sys.exit(run_demo(SMALL))"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TMPDIR": str(temp)},
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "Read a year" in line:
                break
        assert processes_of(temp) != []
        yield demo


def test_interrupted_it_stops_everything_it_started(temp: Path, starting: subprocess.Popen[str]) -> None:
    starting.terminate()

    told, _ = starting.communicate()
    assert (starting.returncode, told.splitlines()[-1]) == (1, "demo: interrupted")
    assert processes_of(temp) == []


def test_killed_it_leaves_no_process_behind_either(temp: Path, starting: subprocess.Popen[str]) -> None:
    starting.kill()

    deadline = time.monotonic() + 60
    while processes_of(temp) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(temp) == []
