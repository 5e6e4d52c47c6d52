"""Fixtures of the tests of the last value cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.last_values.scene import ENABLE

if TYPE_CHECKING:
    from tests.sandbox import Sandbox


@pytest.fixture
def metrics(db: Sandbox) -> Sandbox:
    """Make a ChronoTable with a cache of each device's newest value."""
    db.run("SET LOCAL timezone = 'UTC'")
    db.chronotable("ts timestamptz, device text, value float8")
    db.run(ENABLE)
    return db
