"""Fixtures of the tests of trimmed shadows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.trim.scene import prepared

if TYPE_CHECKING:
    from tests.stage import HandFeed, Stage


@pytest.fixture(params=[True, False], ids=["keyed", "keyless"])
def feed(stage: Stage, request: pytest.FixtureRequest) -> HandFeed:
    return prepared(stage, keyed=request.param)


@pytest.fixture
def keyed(stage: Stage) -> HandFeed:
    return prepared(stage)
