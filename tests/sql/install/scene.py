"""Shared helpers of the install tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_provider_lakets.engine import install_script
from airflow_provider_lakets.local.pg.binaries import bin_dir
from tests.stage import FEED

if TYPE_CHECKING:
    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

HERE = Path(__file__).parents[1]

# What other programs made in the schema's time: kept under another name, or generated for each
# relation.
NOT_OURS = "proname ~ '^_0_1_|^_track_.*_|^_lvc_[0-9]|^_fill_|^_?my_'"

CATALOG = {
    "functions": f"SELECT pg_get_functiondef(oid), proacl::text FROM pg_proc"
    f" WHERE pronamespace = 'lakets'::regnamespace AND prokind = 'f' AND NOT ({NOT_OURS}) ORDER BY 1",
    "aggregates": "SELECT oid::regprocedure::text, aggtransfn::text, aggfinalfn::text, aggcombinefn::text,"
    " aggtranstype::regtype::text FROM pg_aggregate JOIN pg_proc ON oid = aggfnoid"
    f" WHERE pronamespace = 'lakets'::regnamespace AND NOT ({NOT_OURS}) ORDER BY 1",
    "comments": "SELECT oid::regprocedure::text, obj_description(oid, 'pg_proc') FROM pg_proc"
    " WHERE pronamespace = 'lakets'::regnamespace AND obj_description(oid, 'pg_proc') IS NOT NULL ORDER BY 1",
    "columns": "SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull,"
    " pg_get_expr(adbin, adrelid) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid AND"
    " relkind = 'r'"
    " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
    " WHERE relnamespace = 'lakets'::regnamespace AND attnum > 0 AND NOT attisdropped"
    " AND relname !~ '^my_' ORDER BY 1, 2",
    "constraints": "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'lakets'::regnamespace AND contype <> 'n' ORDER BY 1, 2",
    "indexes": "SELECT indrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index JOIN"
    " pg_class ON oid = indexrelid"
    " WHERE relnamespace = 'lakets'::regnamespace ORDER BY 1, 2",
    "rights": "SELECT oid::regclass::text, relacl::text FROM pg_class"
    " WHERE relnamespace = 'lakets'::regnamespace AND relkind = 'r' AND relname !~ '^my_' ORDER BY 1",
    "schemas": "SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname LIKE 'lakets%' ORDER BY 1",
}

OF_01 = (
    *("_version", "_chronotable_registry", "_chunk_metadata", "_lvc_registry"),
    *("_policy_registry", "_rollup_registry", "_rollup_invalidation_log"),
)


def rows(conninfo: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        cursor = conn.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


def value(conninfo: str, query: str, *parameters: Any) -> Any:
    return rows(conninfo, query, *parameters)[0][0]


def program(postgres: EmbeddedPostgres, name: str) -> Path:
    """Return the path of a Postgres client program; Postgres 17 has none here, so 18's is used."""
    return bin_dir(18 if postgres.version == 17 else postgres.version) / name


def install(conninfo: str, script: str | None = None) -> list[str]:
    """Run the install and return its warnings."""
    warned: list[str] = []
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.add_notice_handler(lambda notice: warned.append(str(notice.message_primary)))
        conn.execute((script or install_script()).encode())
    return warned


def catalog(conninfo: str) -> dict[str, list[tuple[Any, ...]]]:
    return {name: rows(conninfo, query) for name, query in CATALOG.items()}


def registries(conninfo: str) -> dict[str, list[dict[str, Any]]]:
    with psycopg.connect(conninfo) as conn:
        return {
            table: [
                row
                for (row,) in conn.execute(f"SELECT to_jsonb(t) FROM lakets.{table} AS t ORDER BY 1".encode())
            ]
            for table in OF_01[1:]
        }


def one(conn: psycopg.Connection, query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def feed(upgraded: psycopg.Connection) -> None:
    """Let a feed stream all shadows."""
    upgraded.execute(FEED.encode())
    upgraded.execute(
        "INSERT INTO wal2delta.tables SELECT lakets._shadow_relation(shadow_table_name), 'STREAMING',"
        " pg_current_wal_insert_lsn() FROM lakets._chronotable_registry WHERE sync_enabled"
    )


def tier_all(upgraded: psycopg.Connection, name: str, schema: str) -> None:
    """Tier what is due of a table, as the job does: until all is compared, flushed and proved."""
    for _ in range(3):
        upgraded.execute(
            "SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier(%s, %s)", [name, schema]
        )
        upgraded.execute("UPDATE wal2delta.tables SET committed_lsn = pg_current_wal_insert_lsn()")
    upgraded.execute(
        "SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier(%s, %s)", [name, schema]
    )


def by_status(upgraded: psycopg.Connection, table_id: int, age: str) -> set[str]:
    """Return in which states the chunks of a table are that ended so long ago."""
    return {
        status
        for (status,) in upgraded.execute(
            "SELECT status FROM lakets._chunk_metadata WHERE chronotable_id = %s"
            " AND range_end <= now() - %s::interval",
            [table_id, age],
        )
    }
