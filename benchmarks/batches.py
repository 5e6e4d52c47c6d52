"""Insert JSON objects by one call of ``ingest_batch``, and as LakeTS 0.1.3 does: one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.measure import Bar, Figure, Step, measure, timed
from benchmarks.server import FEED
from tests.older import LAKETS_01

if TYPE_CHECKING:
    import psycopg

    from benchmarks.scale import Scale
    from benchmarks.server import Server

OBJECTS = 10_000
COLUMNS = (
    "time timestamptz NOT NULL, host text NOT NULL, region text NOT NULL,"
    " cpu float8, memory float8, disk float8"
)
DATA = f"""
CREATE TABLE objects AS
SELECT jsonb_agg(jsonb_build_object(
           'time', {tables.FIRST_DAY} + n * interval '1 minute', 'host', 'host-' || n % 100, 'region', 'eu',
           'cpu', n % 97 * 1.1, 'memory', n, 'disk', n * 2)) AS data
  FROM generate_series(1, {OBJECTS}) AS n;
CREATE TABLE rows AS SELECT item.* FROM objects, jsonb_populate_recordset(NULL::bare, data) AS item;
"""
CALL = "SELECT lakets.ingest_batch('{}', data) FROM objects"


def run(server: Server, scale: Scale) -> list[Figure]:
    """Insert the same objects both ways, into a bare ChronoTable and one with all features."""
    with server.database("batches") as ours, server.database("batches_01", LAKETS_01 + FEED) as older:
        for conn in (ours, older):
            _prepare(conn)
        steps: dict[str, Step] = {
            f"{engine} {name}": _ingest(conn, name)
            for engine, conn in (("ours", ours), ("older", older))
            for name in ("bare", "dressed")
        }
        steps["rows"] = lambda _: timed(ours, "INSERT INTO bare SELECT * FROM rows")
        samples = measure(steps, rounds=scale.rounds)
    return [
        Figure(
            "Ingest",
            f"ingest_batch, {OBJECTS:,} objects, {what}",
            "ms",
            engine=samples[f"ours {name}"],
            floor=samples[f"older {name}"],
            floor_name="one INSERT each, as in 0.1.3",
            bar=bar,
        )
        for name, what, bar in (
            ("bare", "nothing else", None),
            ("dressed", "synced, tiered, one RollUp, cache", Bar(1 / 20)),
        )
    ] + [
        Figure(
            "Ingest",
            f"ingest_batch, {OBJECTS:,} objects: to the same rows",
            "ms",
            engine=samples["ours bare"],
            floor=samples["rows"],
            floor_name="INSERT ... SELECT of rows into the same ChronoTable",
        )
    ]


def _ingest(conn: psycopg.Connection, table: str) -> Step:
    return lambda _: timed(conn, CALL.format(table))


def _prepare(conn: psycopg.Connection) -> None:
    day = tables.FIRST_DAY
    statements = [
        statement
        for name in ("bare", "dressed")
        for statement in (
            f"CREATE TABLE {name} ({COLUMNS})",
            f"SELECT lakets.create_chronotable('{name}', 'time', '1 day')",
            f"SELECT lakets._ensure_partitions(id, p_range_start => {day}, p_range_end => {day}"
            f" + interval '8 days') FROM lakets._chronotable_registry WHERE table_name = '{name}'",
        )
    ]
    statements += [
        DATA,
        "SELECT lakets.enable_sync('dressed')",
        "SELECT lakets.add_tiering_policy('dressed', '400 days')",
        "SELECT lakets.create_rollup('hourly', 'SELECT lakets.time_bucket(''1 hour'', time) AS bucket, host,"
        " avg(cpu) AS cpu FROM public.dressed GROUP BY 1, 2', '1 hour', 'dressed')",
        "SELECT lakets.enable_rollup_invalidation('hourly')",
        "SELECT lakets.enable_lvc('dressed', '{host}', '{cpu,memory}')",
    ]
    for statement in statements:
        conn.execute(statement.encode())
