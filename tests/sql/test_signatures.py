"""An install leaves no older signature beside its successor: a call would be ambiguous."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.engine import install_script

if TYPE_CHECKING:
    import psycopg

FUNCTIONS = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'lakets'::regnamespace"
TABLE = "lakets._chronotable_registry"
OLDER = [
    "_ensure_partitions(integer, integer, integer, timestamptz, timestamptz)",
    f"_missing_chunks({TABLE}, timestamptz, timestamptz, tstzmultirange)",
    f"_due_chunks({TABLE}, regclass, timestamptz, timestamptz)",
    f"_create_chunk_table({TABLE}, timestamptz)",
    f"_create_chunk_table({TABLE}, timestamptz, text)",
    f"_create_chunk({TABLE}, timestamptz, timestamptz)",
    f"_attach_chunk({TABLE}, regclass, timestamptz, timestamptz)",
    f"_register_chunk({TABLE}, regclass, timestamptz, timestamptz)",
    f"_prune_change_log({TABLE})",
]


def test_functions_of_older_builds_go(conn: psycopg.Connection) -> None:
    fresh = {signature for (signature,) in conn.execute(FUNCTIONS)}
    conn.execute("DELETE FROM lakets.migration WHERE name = '0005_signatures'")
    for signature in OLDER:
        conn.execute(f"CREATE FUNCTION lakets.{signature} RETURNS void LANGUAGE sql AS ''".encode())

    conn.execute(install_script())

    assert {signature for (signature,) in conn.execute(FUNCTIONS)} == fresh
