"""Shared helpers of the races of retention."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.isolation.conftest import Session


RETAIN = "SELECT lakets.execute_retention('metrics')"


def write(session: Session, day: int, value: int = 100) -> None:
    session.run("INSERT INTO metrics VALUES (%s, %s, %s)", value, f"2024-01-{day:02} 01:00+00", value)


REPORT = "SELECT blocked_by FROM lakets.retention_report('metrics') WHERE chunk_name = %s"
