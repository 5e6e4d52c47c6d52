"""COPY in batches into a ChronoTable that is synced, tiered and rolled up."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.measure import Bar, Figure, Step, measure

if TYPE_CHECKING:
    import psycopg

    from benchmarks.scale import Scale
    from benchmarks.server import Server

BATCH = 10_000


def run(server: Server, scale: Scale) -> list[Figure]:
    """Copy the same batches into the plain table and the ChronoTables, batch by batch in turn."""
    size = scale.ingest_batches
    days = size * BATCH * (scale.rounds + 1) // tables.ROWS_A_DAY + 1
    with server.database("ingest") as conn:
        tables.plain_partitions(conn, "plain", tables.FIRST_DAY, days)
        tables.mirror_inserts(conn, "plain")
        for count, name in ((1, "rolled_once"), (2, "rolled_twice")):
            last = f"{tables.FIRST_DAY} + interval '{days} days'"
            tables.chronotable(conn, name, tables.FIRST_DAY, last)
            tables.track(conn, name, count)
        samples = measure(_copiers(conn), rounds=size * scale.rounds, warm_up=size)
    totals = {
        name: [sum(taken[start : start + size]) for start in range(0, len(taken), size)]
        for name, taken in samples.items()
    }
    return [
        Figure(
            "Ingest",
            f"COPY {size} x {BATCH:,} rows, {rollups}",
            "ms",
            engine=totals[name],
            floor=totals["plain"],
            floor_name="partitioned, trigger to indexed table",
            bar=Bar(1.4),
        )
        for name, rollups in (("rolled_once", "one RollUp"), ("rolled_twice", "two RollUps"))
    ]


def _copiers(conn: psycopg.Connection) -> dict[str, Step]:
    @lru_cache(maxsize=1)
    def batch(number: int) -> bytes:
        return tables.copy_data(conn, number * BATCH, (number + 1) * BATCH)

    def copier(name: str) -> Step:
        def step(number: int) -> float:
            data = batch(number)
            started = time.perf_counter()
            with conn.cursor().copy(f"COPY {name} FROM STDIN") as copy:
                copy.write(data)
            return (time.perf_counter() - started) * 1000

        return step

    return {name: copier(name) for name in ("plain", "rolled_once", "rolled_twice")}
