"""Waiting without the clock: tests define what happens while triggers or sensors sleep."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.copies import Copies
    from tests.lab import Lab
    from tests.stage import Stage


class Pauses:
    """
    The pauses between two looks. Each takes the next step; a pause after the last step fails.

    ``lengths`` are the seconds that were to be slept.
    """

    def __init__(self) -> None:
        self.steps: list[Callable[[], object]] = []
        self.lengths: list[float] = []

    def then(self, *steps: Callable[[], object]) -> None:
        """Set what happens in the next pauses."""
        self.steps.extend(steps)

    def sleep(self, seconds: float) -> None:
        self.lengths.append(seconds)
        assert self.steps, f"nobody expected a pause after {len(self.lengths) - 1}"
        self.steps.pop(0)()

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pauses]:
    """Yield what triggers and sensors sleep by; every step must be taken in the end."""
    from airflow_provider_lakets.triggers import base

    sensor = importlib.import_module("airflow.sdk.bases.sensor")
    pauses = Pauses()
    monkeypatch.setattr(base, "asyncio", SimpleNamespace(sleep=pauses.asleep))
    clock = {name: getattr(sensor.time, name) for name in ("monotonic", "time")}
    monkeypatch.setattr(sensor, "time", SimpleNamespace(sleep=pauses.sleep, **clock))
    yield pauses
    assert pauses.steps == []


@pytest.fixture
def lake(lab: Lab, lab_copies: Copies) -> Iterator[Stage]:
    """Yield a stage in the database that lakebase_default leads to; its feeds are moved by hand."""
    from tests.stage import Stage

    stage = Stage(lab.conninfo, lab_copies if lab.is_fresh() else None, *lab.made)
    yield stage
    stage.close()
