"""Shared helpers of the mirror tests: a synced ChronoTable of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sandbox import Sandbox

if TYPE_CHECKING:
    import psycopg

SHAPES = {
    "key": "id int, ts timestamptz, v text, PRIMARY KEY (id, ts)",
    "wide key": "id int, v text, ts timestamptz, site text DEFAULT 'x', PRIMARY KEY (ts, site, id)",
    "no key": "ts timestamptz, id int, v text, j json DEFAULT '{}'",
    "late key": "id int, ts timestamptz, v text, PRIMARY KEY (id, ts) DEFERRABLE",
    "date": "id int, ts date, v text, PRIMARY KEY (id, ts)",
    "wall clock": "id int, ts timestamp, v text",
}

# The rows: ids 1 to 30 over three days, some of them twice where there is no key.
FILL = (
    "INSERT INTO metrics (id, ts, v) SELECT n, '2024-01-01'::date + n % 3, 'v' || n % 4 FROM"
    " generate_series(1, 30) AS n"
)


def shaped(shapes: psycopg.Connection, shape: str) -> Sandbox:
    shapes.execute("SELECT set_config('search_path', quote_ident(%s), true)", [shape])
    return Sandbox(shapes, shape)


def mirror(db: Sandbox, shape: str, fill: str | None = FILL) -> Sandbox:
    """Make a synced ChronoTable of a shape."""
    table_id = db.chronotable(SHAPES[shape], synced=True)
    db.value(
        "SELECT lakets._ensure_partitions(%s, p_range_start => '2024-01-01+00', p_range_end =>"
        " '2024-01-03+00')",
        table_id,
    )
    if fill:
        db.run(fill)
        if shape in ("no key", "wall clock"):
            db.run(fill + " WHERE n < 10")
    return db


def missed(db: Sandbox) -> int:
    return int(db.value("SELECT count(*) FROM lakets._mirror_gap"))


def problem(db: Sandbox) -> str | None:
    """Return explain_durability's text about the mirror, if the feed has flushed everything."""
    db.run(
        "CREATE SCHEMA IF NOT EXISTS wal2delta; CREATE TABLE IF NOT EXISTS wal2delta.tables"
        " (table_oid oid, status text, committed_lsn pg_lsn, last_write_time timestamptz);"
        " TRUNCATE wal2delta.tables"
    )
    db.run(
        f"INSERT INTO wal2delta.tables VALUES ('{db.shadow()}'::regclass, 'STREAMING', 'FFFFFFFF/0', now())"
    )
    said = db.value(
        "SELECT lakets.explain_durability(chunk.chunk_name) FROM lakets._chunk_metadata AS chunk"
        " JOIN lakets._chronotable_registry AS tab ON tab.id = chronotable_id"
        " WHERE tab.schema_name = %s AND chunk.status = 'active' LIMIT 1",
        db.schema,
    )
    return str(said) if said and "enable_sync" in said else None
