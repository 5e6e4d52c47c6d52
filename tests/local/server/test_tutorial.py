"""The tutorial does what it says, as a reader runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.local.client import LocalServer

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


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the environment of a shell that `lakets local up --env` pointed at a new Lakebase."""
    with LocalServer(tmp_path_factory.mktemp("lake"), feed_interval=0.2) as server:
        home = str(tmp_path_factory.mktemp("airflow"))
        inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        yield {**inherited, **server.env(), "AIRFLOW_HOME": home, "COLUMNS": "100"}


def run(command: list[str], shell: dict[str, str]) -> str:
    done = subprocess.run(command, env=shell, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tutorial_runs_from_its_first_line_to_its_last(shell: dict[str, str]) -> None:
    commands = [line for line in SHELL if line not in DONE_HERE]
    assert commands == ["lakets install", "lakets doctor"]

    for command in commands:
        run([sys.executable, "-m", "airflow_provider_lakets", *command.split()[1:]], shell)
    make, work = PYTHON
    run([sys.executable, "-c", make], shell)
    told = run([sys.executable, "-c", work], shell).splitlines()

    assert re.fullmatch(r"public.metrics (created|unchanged) ", told[0])
    assert "daily refreshed " in told
    assert sum(line.startswith("public.metrics_") for line in told) >= 5  # the cold chunks
    assert told[-1].startswith("public.metrics ")
