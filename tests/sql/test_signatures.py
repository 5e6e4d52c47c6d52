"""An install leaves no function of an older build beside its successor: a call would be ambiguous."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_lakets.engine import install_script, migrations

if TYPE_CHECKING:
    import psycopg

FUNCTIONS = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'lakets'::regnamespace"


def test_functions_of_older_builds_go(conn: psycopg.Connection) -> None:
    (migration,) = (path for path in migrations() if path.name == "0005_signatures.sql")
    older = re.findall(r"DROP FUNCTION IF EXISTS (lakets\.\w+\(.*\));", migration.read_text())
    fresh = {signature for (signature,) in conn.execute(FUNCTIONS)}
    conn.execute("DELETE FROM lakets.migration WHERE name = '0005_signatures'")
    for signature in older:
        conn.execute(f"CREATE FUNCTION {signature} RETURNS void LANGUAGE sql AS ''".encode())

    conn.execute(install_script())

    assert len(older) > 5
    assert {signature for (signature,) in conn.execute(FUNCTIONS)} == fresh
