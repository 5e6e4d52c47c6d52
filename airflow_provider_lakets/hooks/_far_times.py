"""Times that Postgres has and Python has not: after the year 9999, and before the year 1."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import psycopg
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types.datetime import TimestamptzLoader

if TYPE_CHECKING:
    from psycopg.abc import AdaptContext, Buffer

# A day from the ends, so that they exist in every time zone.
EARLIEST = datetime(1, 1, 2, tzinfo=timezone.utc)
LATEST = datetime(9999, 12, 30, tzinfo=timezone.utc)


class NearestTimeLoader(Loader):
    """
    Load a ``timestamptz`` as the nearest time that Python has.

    One row with a wrong clock moves the watermark of a RollUp there (milliseconds read as seconds
    give the year 55,000), which must not stop the jobs of all others.
    """

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        exact = psycopg.adapters.get_loader(oid, Format.TEXT) or TimestamptzLoader  # in C, if there is one
        self._exact = exact(oid, context)

    def load(self, data: Buffer) -> datetime:
        try:
            at: datetime = self._exact.load(data)
        except psycopg.DataError:
            text = bytes(data)
            return EARLIEST if text.endswith(b"BC") or text == b"-infinity" else LATEST
        return at
