"""Fixtures of the races of the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Session
    from tests.stage import HandFeed, Stage


@pytest.fixture
def feed(stage: Stage) -> HandFeed:
    return stage.synced()


@pytest.fixture
def writer(feed: HandFeed, sessions: Callable[[str], Session]) -> Session:
    return sessions("writer")


@pytest.fixture
def second(feed: HandFeed, sessions: Callable[[str], Session]) -> Session:
    return sessions("second writer")
