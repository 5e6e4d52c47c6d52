"""The Postgres server that is measured, and the tables in it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from airflow_provider_lakets.engine import install_script
from airflow_provider_lakets.local.pg.binaries import bin_dir
from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

# Like a small production server: durable, and with enough WAL space that checkpoints during a
# measurement are rare. wal_level is logical, as on Lakebase, for the floor as well.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "maintenance_work_mem": "256MB",
    "work_mem": "16MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "max_locks_per_transaction": "256",
}

# The state of the change feed that the engine reads: it streams, and everything is flushed.
FEED = """
CREATE SCHEMA wal2delta;
CREATE TABLE wal2delta.tables (
    table_oid oid PRIMARY KEY, status text NOT NULL, committed_lsn pg_lsn, last_write_time timestamptz
);
"""


class Server:
    """Create databases with LakeTS installed, and run pgbench in them."""

    def __init__(self, postgres: EmbeddedPostgres, bin_dir: Path) -> None:
        self._postgres = postgres
        self._bin_dir = bin_dir
        self._install = install_script()
        with self.connect("postgres") as conn:
            self.version = f"PostgreSQL {conn.info.parameter_status('server_version')}"

    def conninfo(self, database: str) -> str:
        return self._postgres.conninfo(database)

    def connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(self.conninfo(database), autocommit=True)

    @contextmanager
    def database(self, name: str, script: str | None = None) -> Iterator[psycopg.Connection]:
        """
        Yield a session in a new database, which is dropped afterwards to stop its autovacuum.

        :param script: SQL to install there instead of LakeTS and the feed.
        """
        self._postgres.ensure_database(name)
        try:
            with self.connect(name) as conn:
                conn.execute(script or self._install + FEED)
                yield conn
        finally:
            self._postgres.drop_database(name)

    def pgbench(self, database: str, *arguments: str) -> str:
        """Run pgbench to its end and return what it printed."""
        command = [str(self._bin_dir / "pgbench"), "--no-vacuum", "--protocol=prepared", *arguments, database]
        done = subprocess.run(
            command,
            env={**os.environ, "PGHOST": self._postgres.socket_dir, "PGUSER": "postgres"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"pgbench failed: {done.stderr.strip()}")
        return done.stdout


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server in a temporary folder, and stop and remove it afterwards."""
    with (
        # A short path: a Unix socket's name is limited to 107 bytes.
        tempfile.TemporaryDirectory(prefix="lakets-bench-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres(Path(folder) / "pg", settings=SETTINGS) as postgres,
    ):
        yield Server(postgres, bin_dir(postgres.version))
