"""The code of docs/dbos.md runs as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "dbos.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.mark.usefixtures("environment")
def test_the_program_starts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", url)
    (program,) = [block for block in BLOCKS if "DBOS.launch()" in block]

    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint(len(DBOS.list_workflows()))\nDBOS.destroy()"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].isdigit()


@pytest.mark.parametrize("block", [block for block in BLOCKS if "DBOS.launch()" not in block])
def test_the_tasks_are_made(block: str) -> None:
    from airflow.sdk import DAG

    with DAG("shop") as dag:
        exec(block)

    assert dag.tasks
