"""Fixtures of the races of refreshes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Session
    from tests.stage import Stage


@pytest.fixture
def rollups(stage: Stage) -> Stage:
    """Create hourly and daily RollUps, and a change for the next refresh."""
    stage.once(make_rollups)
    return stage


def make_rollups(stage: Stage) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.rollup("daily", reads="hourly", every="1 day")
    stage.run("INSERT INTO metrics VALUES (9, '2024-01-01 05:00+00', 9), (9, '2024-01-03 05:00+00', 9)")


@pytest.fixture
def writer(rollups: Stage, sessions: Callable[[str], Session]) -> Session:
    return sessions("writer")


@pytest.fixture
def refresher(rollups: Stage, sessions: Callable[[str], Session]) -> Session:
    return sessions("refresher")
