"""The embedded Postgres server under the local Lakebase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from airflow_provider_lakets.local.pg.process import Server

DEFAULT_DATABASE = "databricks_postgres"

# Settings of Lakebase that a new cluster lacks; the change feed decodes the WAL.
SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "port": "5432",  # whatever PGPORT is; only the name of the socket depends on it
    "max_replication_slots": "32",
    "max_wal_senders": "32",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres:
    """
    A Postgres server in a directory of its own, reached over a Unix socket.

    Starting it twice on one directory joins the server that already runs.

    :param data_dir: The folder of the cluster; created, with its parents, if missing.
    :param version: Postgres major version: 16, 17 or 18.
    :param settings: Server settings in addition to :data:`SETTINGS`, for a new cluster.
    :param keep_running: Leave the server running when this process ends.
    :param follows: The server that a new cluster is a hot standby of.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        version: int = 16,
        settings: Mapping[str, str] | None = None,
        keep_running: bool = False,
        follows: EmbeddedPostgres | None = None,
    ) -> None:
        self._follows = follows
        self.data_dir = data_dir
        self.version = version
        self.settings = {**SETTINGS, **(settings or {})}
        self.keep_running = keep_running
        self._server: Server | None = None

    def start(self) -> EmbeddedPostgres:
        """Create a new cluster, start the server and return once it accepts connections."""
        from airflow_provider_lakets.local.pg.process import Server

        server = Server.of(self.data_dir, version=self.version)
        server.keep_running = self.keep_running
        settings = "".join(f"{name} = '{value}'\n" for name, value in self.settings.items())
        server.start(settings, follows=self._follows.conninfo() if self._follows else None)
        self._server = server
        return self

    def stop(self) -> None:
        """Stop the server, unless this or another process uses it; a second call does nothing."""
        self._release(keep_running=False)

    def leave(self) -> None:
        """Leave the server running."""
        self._release(keep_running=True)

    def _release(self, *, keep_running: bool) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.keep_running = keep_running
            server.leave()

    def __enter__(self) -> EmbeddedPostgres:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def socket_dir(self) -> str:
        """The directory of the Unix socket: what a client passes as ``host``."""
        if self._server is None:
            raise RuntimeError(f"The Postgres server in {self.data_dir} is not running; call start() first.")
        return str(self._server.socket_dir)

    def conninfo(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return a libpq connection string."""
        return make_conninfo(host=self.socket_dir, port=5432, dbname=database, user=user)

    def ensure_database(self, name: str = DEFAULT_DATABASE, template: str | None = None) -> str:
        """Create a database unless it exists, and return its connection string."""
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            found = conn.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone()
            if found is None:
                statement = "CREATE DATABASE {}"
                if template:
                    # By default a copy is written to the WAL too, which takes twice as long.
                    statement += " TEMPLATE {} STRATEGY file_copy"
                conn.execute(sql.SQL(statement).format(*map(sql.Identifier, filter(None, (name, template)))))
        return self.conninfo(name)

    def ensure_role(self, name: str) -> None:
        """Create a role that may log in, unless it exists."""
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is None:
                conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the sessions in it."""
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
