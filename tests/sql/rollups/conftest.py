"""Fixtures of the RollUp tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.rollups.scene import make_layers

if TYPE_CHECKING:
    from tests.stage import Stage


@pytest.fixture
def layered(stage: Stage) -> Stage:
    """Create hourly, daily and weekly RollUps, each on the previous one."""
    stage.once(make_layers)
    return stage
