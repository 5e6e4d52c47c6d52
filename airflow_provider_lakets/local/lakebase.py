"""A Lakebase in a folder: the Postgres server, the change feed, and the Delta tables."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from airflow_provider_lakets.local.feed import control
from airflow_provider_lakets.local.feed.catalog import SCHEMA
from airflow_provider_lakets.local.feed.control import DEFAULT_INTERVAL
from airflow_provider_lakets.local.feed.process import FeedProcess
from airflow_provider_lakets.local.pg.account import Account
from airflow_provider_lakets.local.pg.postgres import DEFAULT_DATABASE, EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import pyarrow as pa

_COLUMNS = """
SELECT a.attname, (s.starts_at - '0/0')::bigint
  FROM pg_catalog.pg_attribute AS a LEFT JOIN wal2delta_local.sync AS s ON s.table_oid = a.attrelid
 WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 ORDER BY a.attnum
"""


class LocalLakebase:
    """
    A Lakebase that needs only a folder; starting one that already runs joins it.

    The feed runs in a separate process. It ends with this process, even if this one is killed,
    unless ``keep_running`` is set. The next start takes over whatever a killed run left behind.

    :param folder: Holds all files: ``pg/``, ``delta/<database>/``, ``feed.log``.
    :param version: Postgres major version: 16, 17 or 18.
    :param feed_interval: Seconds between two rounds of the feed.
    :param settings: Further Postgres settings, for a new folder.
    :param keep_running: Whether it keeps running after the ``with`` block and this process.
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
        self.feed = FeedProcess(self.folder)

    def start(self) -> LocalLakebase:
        """Start the parts that do not run yet, and return once the feed follows the database."""
        Account().make_private(self.folder)
        self.postgres.start()
        try:
            self.postgres.ensure_database(self.database)
            self.feed.wait_for_orphan()
            if self.feed.pid() is None:
                self.start_feed()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the feed, then the server; repeating the call does nothing."""
        self.stop_feed()
        self.postgres.stop()

    def give_up_start(self) -> None:
        """Make a :meth:`start` in another thread fail as soon as possible."""
        self.feed.give_up()

    def __enter__(self) -> LocalLakebase:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.keep_running or not self.feed.is_ours:
            self.feed.leave()
            self.postgres.leave()  # the server belongs to the process that started the feed
        else:
            self.stop()

    # Connections

    def conninfo(self, user: str = "postgres") -> str:
        """Return a libpq connection string."""
        return self.postgres.conninfo(self.database, user)

    def airflow_connection(self, user: str = "postgres") -> str:
        """
        Return a ``lakebase`` connection as JSON, for ``AIRFLOW_CONN_LAKEBASE_DEFAULT``.

        The server asks for no password on its socket. This one only marks the login as native.
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
        Create a role with only the rights that the jobs need; call this after installing LakeTS.

        :param member_of: The role that owns the tables, because only its members may attach and
            drop partitions.
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

    # Delta tables. Imports are local because the process that serves a Lakebase needs none.

    @property
    def delta_dir(self) -> Path:
        """The folder of the Delta tables."""
        return self.folder / "delta" / self.database

    def delta_path(self, shadow: str) -> Path:
        """Return the path of the history of a shadow."""
        from airflow_provider_lakets.local.feed.delta import history_path

        return history_path(self.delta_dir, shadow)

    def history(self, shadow: str) -> pa.Table:
        """Return the whole history of a shadow; if there is none yet, a table without columns."""
        import pyarrow as pa
        from deltalake import DeltaTable

        path = self.delta_path(shadow)
        if not DeltaTable.is_deltatable(str(path)):
            return pa.table({})
        return DeltaTable(path).to_pyarrow_table()

    def current_rows(self, shadow: str) -> pa.Table:
        """
        Return the rows that result from a shadow's history; they should equal the shadow's rows.

        If a shadow was recreated, or skipped for a while, the feed wrote its existing rows again.
        The history is replayed from there.
        """
        import pyarrow.compute as pc

        from airflow_provider_lakets.local.feed.delta import present_rows

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
        """Return once everything that is committed now is in Delta; the timeout is in seconds."""
        control.wait_flushed(self.conninfo(), timeout, self.feed.check)

    def pause_feed(self) -> None:
        """Pause the feed until it is resumed."""
        control.pause(self.conninfo())

    def resume_feed(self) -> None:
        """Resume a paused feed."""
        control.resume(self.conninfo())

    def start_feed(self) -> None:
        """Start the feed, and return once it follows the database."""
        self.feed.start(
            self.conninfo(), self.delta_dir, interval=self.feed_interval, attached=not self.keep_running
        )

    def stop_feed(self) -> None:
        """Let the feed finish its batch, and stop it."""
        self.feed.stop()

    def kill_feed(self) -> None:
        """Kill the feed, to simulate a crash."""
        self.feed.end(signal.SIGKILL)

    def feed_pid(self) -> int | None:
        """Return the process id of the feed, whoever started it; None if no feed runs."""
        return self.feed.pid()
