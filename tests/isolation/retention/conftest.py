"""Fixtures of the races of retention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Session
    from tests.stage import HandFeed, Stage


@pytest.fixture
def feed(stage: Stage) -> HandFeed:
    """Make four cold chunks, proved durable."""
    feed = stage.synced()
    assert stage.tier(1)
    return feed


@pytest.fixture
def retention(feed: HandFeed, sessions: Callable[[str], Session]) -> Session:
    return sessions("retention")


@pytest.fixture
def writer(feed: HandFeed, sessions: Callable[[str], Session]) -> Session:
    return sessions("writer")


@pytest.fixture
def hourly(stage: Stage, feed: HandFeed) -> None:
    stage.rollup("hourly")
    stage.rollup("daily", reads="hourly", every="1 day")
