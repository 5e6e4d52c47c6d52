"""Shared helpers of the races of the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.isolation.conftest import Session


COLD, OTHER = 1, 3


def write(session: Session, day: int, value: int = 100) -> None:
    """Insert a row into a day's chunk."""
    session.run("INSERT INTO metrics VALUES (%s, %s, %s)", value, f"2024-01-{day:02} 01:00+00", value)


def write_and_commit(session: Session, day: int, value: int = 100) -> int:
    session.begin()
    write(session, day, value)
    xid = session.xid
    session.commit()
    return xid
