"""Triggers at work: each look is a login and a query on a real database; feeds move by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pauses import Pauses


@pytest.fixture
def engine() -> str:
    """Our engine, where a test does not ask for the other."""
    return "ours"


@pytest.fixture(autouse=True)
def instead_of_sleeping(pauses: Pauses) -> None:
    """Let nothing sleep, expected or not."""
