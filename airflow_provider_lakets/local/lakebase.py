"""A Lakebase in a folder: the Postgres server, the change feed beside it, and its Delta tables."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from psycopg import sql

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local import control
from airflow_provider_lakets.local.catalog import SCHEMA
from airflow_provider_lakets.local.delta import history_path
from airflow_provider_lakets.local.feed import DEFAULT_INTERVAL
from airflow_provider_lakets.local.postgres import DEFAULT_DATABASE, EmbeddedPostgres
from airflow_provider_lakets.local.replay import present_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LOG_TAIL_LINES = 20

_COLUMNS = """
SELECT a.attname, (s.starts_at - '0/0')::bigint
  FROM pg_catalog.pg_attribute AS a LEFT JOIN wal2delta_local.sync AS s ON s.table_oid = a.attrelid
 WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 ORDER BY a.attnum
"""


class FeedStartError(LakeTSError):
    """The change feed ended before it was ready."""


class LocalLakebase:
    """
    A Lakebase that needs nothing but a folder; starting one that runs joins it.

    The feed is a process of its own. It ends with this process, even a killed one, unless ``keep_running``.
    Whatever a killed run left behind is taken up by the next start.

    :param folder: Holds all of it: ``pg/``, ``delta/<database>/``, ``feed.log``.
    :param version: Postgres major version, 16 or 18.
    :param feed_interval: Seconds between two rounds of the feed.
    :param settings: Further Postgres settings, for a new folder.
    :param keep_running: Leave it running at the end of the ``with`` block and of this process.
    """

    database = DEFAULT_DATABASE

    def __init__(
        self,
        folder: Path,
        *,
        version: int = 16,
        feed_interval: float = DEFAULT_INTERVAL,
        settings: Mapping[str, str] | None = None,
        keep_running: bool = False,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.feed_interval = feed_interval
        self.keep_running = keep_running
        self.postgres = EmbeddedPostgres(
            self.folder / "pg", version=version, settings=settings, keep_running=keep_running
        )
        self._feed: subprocess.Popen[bytes] | None = None

    def start(self) -> LocalLakebase:
        """Start what does not run yet, and return once the feed follows the database."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.postgres.start()
        try:
            self.postgres.ensure_database(self.database)
            self._wait_for_orphan()
            if self.feed_pid() is None:
                self.start_feed()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the feed, then the server; a second call does nothing."""
        self.stop_feed()
        self.postgres.stop()

    def __enter__(self) -> LocalLakebase:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.keep_running or self._feed is None:
            self.postgres.leave()  # it belongs to whoever started the feed
        else:
            self.stop()

    # Ways in

    def conninfo(self, user: str = "postgres") -> str:
        """Return a libpq connection string."""
        return self.postgres.conninfo(self.database, user)

    def airflow_connection(self, user: str = "postgres") -> str:
        """
        Return a ``lakebase`` connection as JSON, for ``AIRFLOW_CONN_LAKEBASE_DEFAULT``.

        The server trusts whoever reaches its socket. The password only says that the login is a native one.
        """
        return json.dumps(
            {
                "conn_type": "lakebase",
                "host": self.postgres.socket_dir,
                "port": 5432,
                "schema": self.database,
                "login": user,
                "password": "unused",
            }
        )

    def create_role(self, name: str, *, member_of: str | None = None) -> None:
        """
        Make a role with the rights that the jobs need, and no others; call again after installing LakeTS.

        :param member_of: The role that owns the tables: only its members may attach and drop partitions.
        """
        role = sql.Identifier(name)
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            if conn.execute("SELECT FROM pg_catalog.pg_roles WHERE rolname = %s", [name]).fetchone() is None:
                conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
            if member_of is not None:
                conn.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(member_of), role))
            for schema in ("public", "lakets", SCHEMA):
                if conn.execute("SELECT to_regnamespace(%s)", [schema]).fetchone() == (None,):
                    continue
                for grant in (
                    "USAGE, CREATE ON SCHEMA {}",
                    "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {}",
                    "USAGE ON ALL SEQUENCES IN SCHEMA {}",
                    "EXECUTE ON ALL FUNCTIONS IN SCHEMA {}",
                ):
                    conn.execute(sql.SQL(f"GRANT {grant} TO {{}}").format(sql.Identifier(schema), role))

    # What is in Delta

    @property
    def delta_dir(self) -> Path:
        """The folder of the Delta tables."""
        return self.folder / "delta" / self.database

    def delta_path(self, shadow: str) -> Path:
        """Return where the history of a shadow lives."""
        return history_path(self.delta_dir, shadow)

    def history(self, shadow: str) -> pa.Table:
        """Return the whole history of a shadow; a table without columns when there is none yet."""
        path = self.delta_path(shadow)
        if not DeltaTable.is_deltatable(str(path)):
            return pa.table({})
        return DeltaTable(path).to_pyarrow_table()

    def current_rows(self, shadow: str) -> pa.Table:
        """
        Return the rows that the history of a shadow leads to, in no order; if all is well, the shadow's own.

        A shadow that was dropped and made anew, or skipped for a while, began again with the rows it had:
        the history is played from there.
        """
        history = self.history(shadow)
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            name = sql.Identifier(SCHEMA, shadow).as_string(conn)
            columns = conn.execute(_COLUMNS, [name]).fetchall()
        if not columns or not history.num_columns:
            return history.slice(0, 0)
        begin = f"{(columns[0][1] or 1) - 1:016x}"
        lately = history.filter(pc.greater_equal(history["_sort_by"], begin))
        return present_rows(lately, [column for column, _ in columns if column in history.column_names])

    # The feed

    def wait_flushed(self, timeout: float = 60.0) -> None:
        """Return once everything that is committed now is in Delta."""
        control.wait_flushed(self.conninfo(), timeout, self._check_feed)

    def pause_feed(self) -> None:
        """Let the feed do nothing until it is resumed."""
        control.pause(self.conninfo())

    def resume_feed(self) -> None:
        """Let a paused feed go on."""
        control.resume(self.conninfo())

    def start_feed(self) -> None:
        """Start the feed, and return once it follows the database."""
        self._wait_for_feed(is_running=False)  # a killed one leaves its slot a moment later
        command = [sys.executable, "-m", "airflow_provider_lakets.local.feed"]
        command += [self.conninfo(), str(self.delta_dir), "--interval", str(self.feed_interval)]
        command += ["--lock", str(self._lock_file)]
        if not self.keep_running:
            command.append("--attached")
        with self._log_file.open("ab") as output:
            self._feed = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if self.keep_running else subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us: the feed ends in its turn
            )
        self._wait_for_feed(is_running=True)

    def _wait_for_feed(self, *, is_running: bool) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while control.feed_is_running(self.conninfo()) != is_running:
            self._check_feed()
            if time.monotonic() > deadline:
                asked = "has not begun to follow" if is_running else "still follows"
                raise FeedStartError(
                    self._with_log(f"After {_START_SECONDS:g} s the feed {asked} {self.database}")
                )
            time.sleep(0.05)

    def stop_feed(self) -> None:
        """Let the feed end its batch and stop; kill it when that takes too long, which loses nothing."""
        self._end_feed(signal.SIGTERM)
        self._end_feed(signal.SIGKILL)

    def kill_feed(self) -> None:
        """Kill the feed as a crash would."""
        self._end_feed(signal.SIGKILL)

    def _end_feed(self, number: signal.Signals) -> None:
        if self._feed is None:
            self._end_foreign_feed(number)
            return
        self._feed.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._feed.wait(_STOP_SECONDS)
            if self._feed.stdin is not None:
                self._feed.stdin.close()
            self._feed = None

    def _end_foreign_feed(self, number: signal.Signals) -> None:
        pid = self.feed_pid()
        with contextlib.suppress(psutil.NoSuchProcess):
            if pid is not None:
                process = psutil.Process(pid)
                process.send_signal(number)
                deadline = time.monotonic() + _STOP_SECONDS
                # Whose child it is may be slow to take note of its end.
                while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
                    time.sleep(0.02)

    @property
    def _lock_file(self) -> Path:
        return self.folder / "feed.lock"

    @property
    def _log_file(self) -> Path:
        return self.folder / "feed.log"

    def feed_pid(self) -> int | None:
        """Return the process id of the feed, whoever started it; None when there is none."""
        return self._holder().get("pid")

    def _holder(self) -> dict[str, int]:
        """Read the lock file while somebody holds it: what a dead process left in it is worth nothing."""
        if not self._lock_file.exists():
            return {}
        with self._lock_file.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return dict(json.loads(lock.read() or "{}"))
        return {}

    def _wait_for_orphan(self) -> None:
        """Let a feed end whose owner was killed: it is about to notice."""
        deadline = time.monotonic() + _STOP_SECONDS
        while (owner := self._holder().get("owner")) and not psutil.pid_exists(owner):
            if time.monotonic() > deadline:
                self.kill_feed()
            time.sleep(0.02)

    def _check_feed(self) -> None:
        if self._feed is not None and self._feed.poll() is not None:
            raise FeedStartError(self._with_log(f"The feed ended with code {self._feed.returncode}"))

    def _with_log(self, message: str) -> str:
        text = self._log_file.read_text(errors="replace") if self._log_file.exists() else ""
        lines = text.splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join([f"{message}; the end of {self._log_file}:", *lines])
