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
from tests.demo import SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = Path(__file__).parents[3] / "dags"


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
    """Be the place of the demo's folder, so that what is left can be seen."""
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
    """Have an environment that leads to other servers, and a locale that knows no UTF-8."""
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value)


def test_ends_with_ok_wherever_the_environment_leads_and_leaves_nothing_behind(
    temp: Path, elsewhere: None
) -> None:
    console = told()

    code = run_demo(SMALL, console=console)

    lines = text(console).splitlines()
    assert (code, lines[-1]) == (0, "demo: OK"), text(console)
    assert max(len(line) for line in lines) <= 80
    assert list(temp.glob("lakets-*")) == []
    assert processes_of(temp) == []


def test_failure_of_a_dag_is_told_at_once_with_its_cause(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dags = temp / "dags"
    shutil.copytree(SAMPLES, dags)
    install = dags / "lakets_install.py"
    broken = install.read_text().replace(
        'LakeTSInstallOperator(task_id="install")',
        'LakeTSInstallOperator(task_id="install", lakebase_conn_id="x")',
    )
    install.write_text(broken)
    monkeypatch.setattr("airflow_provider_lakets.local.demo.run.sample_dags", lambda: dags)
    console = told()

    code = run_demo(SMALL, console=console)

    (left,) = temp.glob("lakets-demo-*")
    assert code == 1
    assert "demo: DAG lakets_install failed.\nTask install: " in text(console)
    assert "'x'" in text(console).partition("Task install: ")[2]
    assert "Traceback" not in text(console)
    assert "Traceback" in (left / "demo.log").read_text()
    assert str(left) in text(console)
    assert processes_of(temp) == []


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_interrupted_it_stops_everything_it_started(
    temp: Path, starting: subprocess.Popen[str], number: signal.Signals
) -> None:
    starting.send_signal(number)

    told, _ = starting.communicate()
    assert (starting.returncode, told.splitlines()[-1]) == (1, "demo: interrupted")
    assert processes_of(temp) == []


def test_killed_it_leaves_no_process_behind_either(temp: Path, starting: subprocess.Popen[str]) -> None:
    starting.kill()

    deadline = time.monotonic() + 60
    while processes_of(temp) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(temp) == []
