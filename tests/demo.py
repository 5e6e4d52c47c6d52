"""The demo on three weeks of data instead of a year, and what a test sees of it."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from rich.console import Console

from airflow_provider_lakets.local.demo.lifecycle import Scale

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = Scale(21, {"weather": "7 days", "flights": "2 days"}, tier_days=5, drop_days=10)


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
