"""
Prepare the local Lakebase: install LakeTS, load sample tables, write Airflow's connections.

Runs as the owner of the Lakebase, whose secret Airflow never sees. Airflow gets a service principal
with the rights of docs/permissions.md, in ``connections.json``. Safe to repeat.
"""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi

from airflow_provider_lakets.local.demo import data
from airflow_provider_lakets.local.demo.sql import ROLLUPS, create_table
from airflow_provider_lakets.local.door.authority import AUTHORITY_FILE
from airflow_provider_lakets.local.state import State

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.local.demo.data import Source

log = logging.getLogger("sample-data")

LAKEBASE = Path("/var/lib/lakebase")
CLIENT = Path("/opt/lakets/client")
DAYS, CHUNK, TIER_AFTER, DROP_AFTER = 120, "7 days", "30 days", "90 days"
FLUSH_SECONDS = 120

OWNERS = """
DO $$ BEGIN
    IF to_regrole('tables_owner') IS NULL THEN CREATE ROLE tables_owner; END IF;
END $$;
GRANT tables_owner TO "{owner}" WITH INHERIT TRUE, SET TRUE;
GRANT tables_owner TO "{jobs}";
"""
# As in docs/permissions.md.
RIGHTS = """
GRANT USAGE, CREATE ON SCHEMA public, lakets, lakets_cdf TO tables_owner;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO tables_owner;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA lakets TO tables_owner;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lakets TO tables_owner;
"""


def main() -> None:
    """Install LakeTS, load the sample tables, and write the connections."""
    state = State.load(LAKEBASE)
    hook = _owner(state)
    installed = hook.install()
    log.info("LakeTS %s is installed (before: %s)", installed.after, installed.before or "none")
    with closing(hook.get_conn()) as conn:
        conn.autocommit = True
        conn.execute(OWNERS.format(owner=state.owner.client_id, jobs=state.jobs.client_id))
        conn.execute(RIGHTS)
        conn.execute("SET ROLE tables_owner")
        tables = data.load(datetime.now(timezone.utc), DAYS)
        for source in data.SOURCES:
            if conn.execute("SELECT to_regclass(%s)", [f"public.{source.name}"]).fetchone() == (None,):
                with conn.transaction():
                    _load(conn, source, tables[source.name])
        _wait_until_flushed(conn)
    _write_connections(state)


def _owner(state: State) -> LakeTSHook:
    """Return a hook that logs in as the owner: with its secret, over TLS, by OAuth."""
    os.environ.update(state.env(LAKEBASE))

    from airflow.sdk import Connection

    from airflow_provider_lakets.hooks.lakets import LakeTSHook

    extra = {"endpoint": state.endpoint, "sslmode": "verify-full"}
    connection = Connection(conn_id="owner", conn_type="lakebase", port=state.port, extra=json.dumps(extra))
    return LakeTSHook("owner", connection=connection)


def _load(conn: psycopg.Connection[Any], source: Source, rows: pa.Table) -> None:
    """Create a ChronoTable that is streamed and has RollUps and a policy, and fill it."""
    conn.execute(create_table(source))
    columns = ", ".join(source.columns)
    with conn.cursor().copy(f"COPY public.{source.name} ({columns}) FROM STDIN") as copy:
        for batch in rows.to_batches():
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                copy.write_row(row)
    conn.execute("SELECT lakets.create_chronotable(%s, %s, %s::interval)", [source.name, source.time, CHUNK])
    conn.execute("SELECT lakets.enable_sync(%s)", [source.name])
    conn.execute(
        "SELECT lakets.add_tiered_retention_policy(%s, %s::interval, %s::interval)",
        [source.name, TIER_AFTER, DROP_AFTER],
    )
    for rollup in ROLLUPS:
        if rollup.name.startswith(source.name):
            conn.execute(
                "SELECT lakets.create_rollup(%s, %s, %s::interval, %s)",
                [rollup.name, rollup.query, rollup.interval, rollup.source],
            )
            conn.execute("SELECT lakets.set_refresh_lag(%s, interval '0')", [rollup.name])
    log.info("Loaded %s rows into %s", f"{rows.num_rows:,}", source.name)


def _wait_until_flushed(conn: psycopg.Connection[Any]) -> None:
    """Wait until the feed streams the tables, so that the tiering DAG has chunks to flag."""
    deadline = time.monotonic() + FLUSH_SECONDS
    query = "SELECT FROM lakets.show_tiering_status(%s) AS s WHERE s.cdf_status = 'STREAMING'"
    while not all(conn.execute(query, [source.name]).fetchone() == () for source in data.SOURCES):
        if time.monotonic() > deadline:
            log.warning("The change feed has not read the tables within %d s", FLUSH_SECONDS)
            return
        time.sleep(0.5)


def _write_connections(state: State) -> None:
    """Write Airflow's connections, and the authorities to trust: public ones and the Lakebase's."""
    authority = (LAKEBASE / AUTHORITY_FILE).read_text()
    _write(AUTHORITY_FILE, authority)
    _write("authorities.pem", Path(certifi.where()).read_text() + authority)
    connections = {
        "databricks_default": {
            "conn_type": "databricks",
            "host": state.url,
            "login": state.jobs.client_id,
            "password": state.jobs.client_secret,
            "extra": {"service_principal_oauth": True},
        },
        "lakebase_default": {
            "conn_type": "lakebase",
            "schema": "databricks_postgres",
            "port": state.port,
            "extra": {
                "endpoint": state.endpoint,
                "databricks_conn_id": "databricks_default",
                "sslmode": "verify-full",
                "sslrootcert": str(CLIENT / AUTHORITY_FILE),
            },
        },
    }
    _write("connections.json", json.dumps(connections, indent=2))
    log.info("Connections: %s", ", ".join(connections))


def _write(name: str, text: str) -> None:
    """Write a file that only its owner may read; atomically, because others may be reading it."""
    fresh = CLIENT / f"{name}.new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    fresh.replace(CLIENT / name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    main()
