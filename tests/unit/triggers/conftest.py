"""Running triggers: each check logs in to a real database; the tests move the feeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pauses import Pauses


@pytest.fixture
def engine() -> str:
    """Our engine, unless a test requests the other."""
    return "ours"


@pytest.fixture(autouse=True)
def instead_of_sleeping(pauses: Pauses) -> None:
    """Replace every sleep, expected or not."""
