"""Batches to map over, and short labels for them."""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_provider_lakets.compat import conf
from airflow_provider_lakets.hooks.functions.rows import unquoted
from airflow_provider_lakets.hooks.results import CHUNK_SUFFIX, table_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# Airflow stores only 250 characters of a mapped task's name.
NAMED_TABLES = 3


def most_tasks(max_batches: int | None) -> int:
    """Return how many tasks may be mapped: the author's limit, but not more than Airflow's."""
    limit: int = conf.getint("core", "max_map_length")
    return min(max_batches or limit, limit)


def batches(names: Sequence[str], *, size: int, most: int) -> list[list[str]]:
    """
    Split names into batches.

    :param names: The names.
    :param size: Names per batch. The batches grow if there would be too many of them.
    :param most: The largest number of batches.
    """
    size = max(size, math.ceil(len(names) / most))
    return [list(names[start : start + size]) for start in range(0, len(names), size)]


def label_of_names(names: Sequence[str]) -> str:
    """Return a short label for names."""
    first, *others = map(unquoted, names)
    return f"{first} and {len(others)} more" if others else first


def label_of_chunks(chunks: Sequence[str]) -> str:
    """Return a short label for chunks; chunks of several tables are counted by table."""
    counts = Counter(table_of(chunk) for chunk in chunks)
    if len(counts) == 1 or not all(CHUNK_SUFFIX.search(chunk) for chunk in chunks):
        return label_of_names(chunks)
    shown = [f"{table}: {count} chunk(s)" for table, count in list(counts.items())[:NAMED_TABLES]]
    more = [f"and {len(counts) - NAMED_TABLES} more table(s)"] if len(counts) > NAMED_TABLES else []
    return ", ".join([*shown, *more])


def rows_in_words(count: int | None) -> str:
    """Return a row count as text; Postgres estimates it, and has none before the first ANALYZE."""
    return "rows not counted yet" if count is None else f"about {count:,} row(s)"


def size_in_words(size: int | None) -> str:
    """Return a size as short text."""
    if size is None:
        return "size unknown"
    amount, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "bytes" else f"{amount:.1f} {units[0]}"


def range_in_words(start: datetime | None, end: datetime | None) -> str:
    """Return a range in UTC as text."""
    first, last = (
        "?" if instant is None else f"{instant.astimezone(timezone.utc):%Y-%m-%d %H:%M}"
        for instant in (start, end)
    )
    return f"{first} to {last} UTC"
