"""The failures of the demo, and what it leaves behind; its success is a system test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.local.demo import run_demo
from airflow_provider_lakets.local.demo.errors import DemoError
from airflow_provider_lakets.local.demo.signals import stoppable
from tests.demo import SMALL, processes_of, text, told

if TYPE_CHECKING:
    from collections.abc import Iterator


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
