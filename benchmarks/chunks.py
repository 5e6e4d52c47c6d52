"""Creating and dropping chunks, and finding that there is nothing to create."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.measure import Bar, Figure, Step, measure, timed

if TYPE_CHECKING:
    import psycopg

    from benchmarks.scale import Scale
    from benchmarks.server import Server

# What LakeTSHook creates and drops in one transaction.
CREATE_BATCH = 100
DROP_BATCH = 20
GATED = "synced, tiered, two RollUps"


def run(server: Server, scale: Scale) -> list[Figure]:
    """Create, fill and drop chunks of new tables; then the same on an existing table."""
    with server.database("chunks") as conn:
        made, gone = _life(conn, scale.chunks, scale.rounds)
    with server.database("standing") as conn:
        due = _nothing_due(conn, scale.standing_chunks, scale.rounds * 4)
    created = [
        Figure(
            "Chunks",
            f"create {scale.chunks:,} chunks, {kind}",
            "ms",
            engine=made[name],
            floor=made["plain"],
            floor_name=f"CREATE TABLE ... PARTITION OF, {CREATE_BATCH} a time",
            bar=Bar(1.3),
        )
        for name, kind in (("bare", "nothing tracked"), ("gated", GATED))
    ]
    dropped = [
        Figure(
            "Chunks",
            f"drop {scale.chunks:,} chunks, {kind}",
            "ms",
            engine=gone[name],
            floor=gone["plain"],
            floor_name=f"DROP TABLE, {DROP_BATCH} a time",
            bar=Bar(1.3),
        )
        for name, kind in (("bare", "nothing tracked"), ("gated", GATED))
    ]
    return [*created, *dropped, due]


def _life(
    conn: psycopg.Connection, chunks: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Measure the creation, then the dropping of the chunks of three new tables a round."""
    first = f"(date_trunc('day', now()) - interval '{chunks + 30} days')"
    last = "(date_trunc('day', now()) - interval '30 days')"

    def create_plain(number: int) -> float:
        conn.execute(f"CREATE TABLE plain{number} ({tables.COLUMNS}) PARTITION BY RANGE (at)")
        return sum(
            timed(conn, tables.create_partitions(f"plain{number}", first, batch))
            for batch in _batches(chunks, CREATE_BATCH)
        )

    def create_chronotable(name: str, rollups: int, number: int) -> float:
        table = f"{name}{number}"
        table_id = tables.chronotable(conn, table, "now()", "now()")
        if rollups:
            tables.track(conn, table, rollups)
        conn.execute(f"SELECT lakets.add_retention_policy('{table}', '20 days')")
        ensure = (
            f"SELECT lakets._ensure_partitions({table_id}, p_range_start => {first}, p_range_end => {last},"
            f" p_max_chunks => {CREATE_BATCH})"
        )
        return sum(timed(conn, ensure) for _ in _batches(chunks, CREATE_BATCH))

    creators: dict[str, Step] = {
        "plain": create_plain,
        "bare": lambda number: create_chronotable("bare", 0, number),
        "gated": lambda number: create_chronotable("gated", 2, number),
    }
    made = measure(creators, rounds=rounds)

    for number in range(rounds + 1):
        for name in creators:
            _fill(conn, f"{name}{number}", first, chunks)
    tables.settle(conn)
    droppers: dict[str, Step] = {
        "plain": lambda number: _drop_plain(conn, f"plain{number}", chunks),
        "bare": lambda number: _retain(conn, f"bare{number}", chunks),
        "gated": lambda number: _retain(conn, f"gated{number}", chunks),
    }
    return made, measure(droppers, rounds=rounds)


def _fill(conn: psycopg.Connection, table: str, first: str, chunks: int) -> None:
    """Put one row into each chunk; refresh the RollUps, and let the feed catch up."""
    conn.execute(
        f"INSERT INTO {table} SELECT {first} + day * interval '1 day', 1, 1"
        f" FROM generate_series(0, {chunks - 1}) AS day"
    )
    if table.startswith("gated"):
        for rollup in tables.ROLLUPS:
            conn.execute(f"SELECT lakets.refresh_rollup('{table}_{rollup}')")
        tables.feed_catches_up(conn)


def _drop_plain(conn: psycopg.Connection, table: str, chunks: int) -> float:
    started = time.perf_counter()
    for batch in _batches(chunks, DROP_BATCH):
        timed(conn, *(f"DROP TABLE {table}_p{day}" for day in batch))
    return (time.perf_counter() - started) * 1000


def _batches(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _retain(conn: psycopg.Connection, table: str, chunks: int) -> float:
    """Drop batch after batch, as LakeTSHook does; all chunks must be dropped."""
    dropped = 0
    started = time.perf_counter()
    while batch := tables.scalar(
        conn, f"SELECT lakets.execute_retention('{table}', p_max_chunks => {DROP_BATCH})"
    ):
        dropped += batch
    taken = (time.perf_counter() - started) * 1000
    if dropped != chunks:
        raise RuntimeError(f"Retention dropped {dropped} chunks of {table}, not {chunks}.")
    return taken


def _nothing_due(conn: psycopg.Connection, chunks: int, rounds: int) -> Figure:
    last = "date_trunc('day', now())"
    table_id = tables.chronotable(conn, "standing", last, last)
    for start in range(chunks, 0, -500):
        conn.execute(
            f"SELECT lakets._ensure_partitions({table_id}, p_range_start => {last} - interval '{start} days',"
            f" p_range_end => {last} - interval '{max(start - 500, 0)} days')"
        )
    tables.settle(conn)
    samples = measure(
        {"engine": lambda _: timed(conn, f"SELECT lakets._ensure_partitions({table_id})")}, rounds=rounds
    )
    return Figure(
        "Chunks",
        f"_ensure_partitions, nothing due, {chunks:,} chunks",
        "ms",
        engine=samples["engine"],
        # Of each chunk it asks whether it can be written directly.
        bar=Bar(10.0, of="figure"),
    )
