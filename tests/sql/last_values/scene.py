"""Shared helpers of the tests of the last value cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from tests.sandbox import Sandbox


NOON = "'2026-01-01 12:00+00'::timestamptz"
ENABLE = "SELECT lakets.enable_lvc('metrics', '{device}', '{value}')"


CACHE = "SELECT device, value FROM _lvc_metrics ORDER BY device"


def write(db: Sandbox, *rows: tuple[int, str | None, float | None]) -> None:
    """Insert rows of a minute, a device and a value, in one statement."""
    values = ", ".join(
        f"({NOON} + interval '{minute} min', {psycopg.sql.quote(device) if device else 'NULL'}, {value})"
        for minute, device, value in rows
    )
    db.run(f"INSERT INTO metrics VALUES {values}".replace("None", "NULL"))


def cached(db: Sandbox) -> dict[str, float | None]:
    return dict(db.run(CACHE))
