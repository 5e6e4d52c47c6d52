"""The last value cache compared with a hand-written trigger: COPY, and single rows of 8 clients."""

from __future__ import annotations

import tempfile
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.clients import INSERT, TODAY, insert
from benchmarks.measure import Bar, Figure, Step, measure

if TYPE_CHECKING:
    import psycopg

    from benchmarks.scale import Scale
    from benchmarks.server import Server

BATCH = 10_000
NAMES = ("by_hand", "cached")
FLOOR = "the same trigger by hand"


def run(server: Server, scale: Scale) -> list[Figure]:
    """Write the same rows to two ChronoTables, one with a cache and one with its own trigger."""
    return [_copy(server, scale), _clients(server, scale)]


def _copy(server: Server, scale: Scale) -> Figure:
    size = scale.ingest_batches
    days = size * BATCH * (scale.rounds + 1) // tables.ROWS_A_DAY + 1
    with server.database("last_values") as conn:
        _prepare(conn, tables.FIRST_DAY, f"{tables.FIRST_DAY} + interval '{days} days'")

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

        samples = measure({name: copier(name) for name in NAMES}, rounds=size * scale.rounds, warm_up=size)
    totals = {
        name: [sum(taken[start : start + size]) for start in range(0, len(taken), size)]
        for name, taken in samples.items()
    }
    return Figure(
        "Last values",
        f"COPY {size} x {BATCH:,} rows, cache on",
        "ms",
        engine=totals["cached"],
        floor=totals["by_hand"],
        floor_name=FLOOR,
        bar=Bar(1.3),
    )


def _clients(server: Server, scale: Scale) -> Figure:
    with server.database("last_values") as conn, tempfile.TemporaryDirectory() as folder:
        _prepare(conn, TODAY, f"{TODAY} + interval '2 days'")
        variants: dict[str, Step] = {}
        for name in NAMES:
            script = Path(folder) / name
            script.write_text(INSERT.format(name))
            variants[name] = partial(insert, server, script, 8, scale.client_seconds, database="last_values")
        samples = measure(variants, rounds=scale.rounds)
    return Figure(
        "Last values",
        "single-row INSERT, 8 clients, cache on",
        "/s",
        engine=samples["cached"],
        floor=samples["by_hand"],
        floor_name=FLOOR,
        bar=Bar(1 / 1.3, at_least=True),
    )


def _prepare(conn: psycopg.Connection, first: str, last: str) -> None:
    for name in NAMES:
        tables.chronotable(conn, name, first, last)
    conn.execute("SELECT lakets.enable_lvc('cached', '{device}', '{value}')")
    conn.execute(
        "CREATE TABLE latest (device integer PRIMARY KEY, value double precision, at timestamptz)"
        " WITH (fillfactor = 70)"
    )
    conn.execute(
        """CREATE FUNCTION keep_latest() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
               INSERT INTO latest AS kept (device, value, at)
               SELECT DISTINCT ON (device) device, value, at FROM new_rows ORDER BY device, at DESC
                   ON CONFLICT (device) DO UPDATE SET value = excluded.value, at = excluded.at
                WHERE kept.at <= excluded.at;
               RETURN NULL;
           END $$"""
    )
    conn.execute(
        "CREATE TRIGGER keep_latest AFTER INSERT ON by_hand REFERENCING NEW TABLE AS new_rows"
        " FOR EACH STATEMENT EXECUTE FUNCTION keep_latest()"
    )
