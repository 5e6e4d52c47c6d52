"""Databases for the page to show: nothing in it, every state of a chunk, and fleets of tables."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from airflow_provider_lakets.engine import install_script
from tests.lab import FEED, Lab

if TYPE_CHECKING:
    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

EMPTY, STATES, STALLED, MANY, FLEET = "page_empty", "page_states", "page_stalled", "page_many", "page_fleet"
LONG_NAME = "n" * 63  # as long as Postgres takes one
DATABASES = [EMPTY, STATES, STALLED, MANY, FLEET]

# The page reads the registries alone, so the chunks of a fleet need no partitions: hourly ones, of
# which the oldest were dropped, then some are tiered, and the newest are hot.
_FLEET = """
INSERT INTO lakets._chronotable_registry (schema_name, table_name, time_column, chunk_interval)
SELECT 'fleet', 'sensors_' || n, 'at', interval '1 hour' FROM generate_series(1, {tables}) AS n;
INSERT INTO lakets._chunk_metadata (chronotable_id, chunk_name, range_start, range_end, status, size_bytes)
SELECT reg.id, reg.table_name || '_' || n, hour - n * interval '1 hour', hour - (n - 1) * interval '1 hour',
       CASE WHEN n > {chunks} * 0.6 THEN 'dropped' WHEN n > 20 AND n % (2 + reg.id % 7) > 0 THEN 'tiered'
            ELSE 'active' END, 8192 * n
  FROM lakets._chronotable_registry AS reg, date_trunc('hour', now()) AS hour,
       generate_series(-2, {chunks} - 3) AS n;
INSERT INTO lakets._policy_registry (chronotable_id, policy_type, config, enabled)
SELECT reg.id, 'tiering', '{{"after": "1 day"}}', true FROM lakets._chronotable_registry AS reg;
ANALYZE
"""


def seed(postgres: EmbeddedPostgres, reader: str) -> None:
    """
    Make the databases.

    :param postgres: Where.
    :param reader: The role that the page logs in as.
    """
    with psycopg.connect(postgres.ensure_database(EMPTY), autocommit=True) as conn:
        conn.execute(install_script().encode())
        conn.execute(FEED)
    for name in DATABASES[1:]:
        postgres.ensure_database(name, template=EMPTY)
    for name, fill in ((STATES, every_state), (STALLED, stalled)):
        lab = Lab(postgres.conninfo(name), "ours")
        with contextlib.closing(lab.conn):
            fill(lab)
            lab.conn.execute("ANALYZE")
    for name, tables, chunks in ((MANY, 50, 100), (FLEET, 400, 100)):
        with psycopg.connect(postgres.conninfo(name), autocommit=True) as conn:
            for statement in _FLEET.format(tables=tables, chunks=chunks).split(";\n"):
                conn.execute(statement.encode())
    for name in DATABASES:
        _let_read(postgres.conninfo(name), reader)


def every_state(lab: Lab) -> None:
    """Have a chunk in each state but deferred, and two RollUps."""
    lab.synced("readings", days=24, tier="6 days", drop="14 days")
    lab.synced("orders", days=12, tier="4 days", drop="30 days")
    for _ in range(2):  # the first try takes note of what must be flushed, the second finds it is
        lab.flush("readings")
        lab.conn.execute(
            "SELECT lakets.tier_chunk(due.chunk_name) FROM lakets._get_chunks_to_tier('readings') AS due"
        )
    lab.conn.execute("SELECT lakets.execute_retention('readings')")
    lab.conn.execute("INSERT INTO readings VALUES (now() - interval '9 days', 'late', 1)")
    lab.flush("orders")
    lab.table(LONG_NAME)
    lab.rollup("hourly", reads="readings")
    lab.rollup("daily", reads="hourly")


def stalled(lab: Lab) -> None:
    """Have a table whose feed has given up, and one whose feed stands still after a run."""
    lab.synced("skipped", days=8)
    lab.flush("skipped", status="SKIPPED")
    lab.synced("behind", days=8)
    lab.flush("behind")
    lab.conn.execute("UPDATE behind SET value = value + 1")
    lab.conn.execute("UPDATE lakets._policy_registry SET last_run_at = now(), tiered_at = now()")


def _let_read(conninfo: str, reader: str) -> None:
    role = sql.Identifier(reader)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        for schema in ("lakets", "lakets_cdf", "wal2delta"):
            where = sql.Identifier(schema)
            conn.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(where, role))
            conn.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(where, role))
            conn.execute(sql.SQL("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {} TO {}").format(where, role))
