"""Functions that queries call once a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.measure import Bar, Figure, Step, measure, timed

if TYPE_CHECKING:
    from benchmarks.scale import Scale
    from benchmarks.server import Server

ROWS = 1_000_000
ORIGIN = "timestamptz '2000-01-01 00:00:00+00'"
# Name, expression, expression of the floor, name of the floor, bar.
COMPARISONS: list[tuple[str, str, str, str, Bar | None]] = [
    (
        "count(time_bucket('1 hour', at))",
        "count(lakets.time_bucket('1 hour', at))",
        f"count(date_bin('1 hour', at, {ORIGIN}))",
        "date_bin",
        Bar(2.0),
    ),
    (
        "count(time_bucket('1 month', at))",
        "count(lakets.time_bucket('1 month', at))",
        f"count(date_bin('30 days', at, {ORIGIN}))",
        "date_bin of 30 days",
        None,
    ),
    ("first(value, at)", "lakets.first(value, at)", "max(value)", "max", None),
    ("last(value, at)", "lakets.last(value, at)", "max(value)", "max", None),
]


def run(server: Server, scale: Scale) -> list[Figure]:
    """Call each function for a million rows on one core, and the same for what Postgres has."""
    figures = []
    with server.database("functions") as conn:
        conn.execute(f"CREATE TABLE plain ({tables.COLUMNS})")
        conn.execute(f"INSERT INTO plain {tables.rows(0, ROWS)}")
        conn.execute("SET max_parallel_workers_per_gather = 0")
        tables.settle(conn)
        for name, engine, floor, floor_name, bar in COMPARISONS:
            steps: dict[str, Step] = {
                key: lambda _, expression=expression: timed(conn, f"SELECT {expression} FROM plain")  # type: ignore[misc]
                for key, expression in (("engine", engine), ("floor", floor))
            }
            samples = measure(steps, rounds=scale.rounds)
            figures.append(
                Figure(
                    "Functions",
                    f"{name}, {ROWS:,} rows",
                    "ms",
                    samples["engine"],
                    samples["floor"],
                    floor_name,
                    bar,
                )
            )
    return figures
