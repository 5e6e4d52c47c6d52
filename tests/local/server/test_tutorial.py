"""The tutorial does what it says, as a reader runs it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from airflow_provider_lakets.cli import app
from airflow_provider_lakets.local.client import LocalServer
from airflow_provider_lakets.local.feed import control
from tests.superuser import superuser

if TYPE_CHECKING:
    from collections.abc import Iterator

TUTORIAL = (Path(__file__).parents[3] / "docs" / "tutorial.md").read_text()
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", TUTORIAL, re.DOTALL) for line in block.splitlines()]
PYTHON = re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL)
# Set up by the reader's own pip; the server is that of the fixture.
DONE_HERE = (
    "python3 -m venv lakets && . lakets/bin/activate",
    "pip install 'airflow-provider-lakets[local]'",
    'eval "$(lakets local up --env)"',
    "lakets local down",
)


@pytest.fixture
def shell(
    tmp_path_factory: pytest.TempPathFactory, postgres_version: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalServer]:
    """Yield a new Lakebase, and set the variables that `lakets local up --env` prints."""
    folder = tmp_path_factory.mktemp("lake")
    with LocalServer(folder, version=postgres_version, feed_interval=0.2) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("COLUMNS", "100")
        yield server


def run(command: str) -> None:
    """Run a `lakets` command in this process, which has imported Airflow already."""
    done = CliRunner().invoke(app, command.split()[1:])
    assert done.exit_code == 0, done.output


def run_python(block: str) -> list[str]:
    """Run a block of Python by itself, and return the lines that it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(block, "tutorial.py", "exec"), {"__name__": "__main__"})
    return printed.getvalue().splitlines()


def test_the_tutorial_runs_from_its_first_line_to_its_last(shell: LocalServer) -> None:
    commands = [line for line in SHELL if line not in DONE_HERE]
    assert commands == ["lakets install", "lakets doctor"]

    for command in commands:
        run(command)
    make, work = PYTHON
    run_python(make)
    control.wait_flushed(superuser(shell), 60)  # a reader takes longer than the feed
    told = run_python(work)

    assert re.fullmatch(r"public.metrics (created|unchanged) ", told[0])
    assert "daily refreshed " in told
    assert sum(line.startswith("public.metrics_") for line in told) >= 5  # the cold chunks
    assert told[-1].startswith("public.metrics ")
