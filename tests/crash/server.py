"""A server that is killed, and jobs that stop before a given statement or in the middle of one."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from airflow_provider_lakets.hooks.lakets import LakeTSHook

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

# Longer than any step should take: only a hang ends here.
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.002

# A kill must lose nothing that was answered, so the WAL is written at each commit; no disk is cut
# off.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "on",
    "autovacuum": "off",
    "max_connections": "400",
    # Stopped jobs hold most locks otherwise, and an install then leaves chunks for later.
    "max_locks_per_transaction": "1024",
    "max_wal_size": "4GB",
}

_numbers = itertools.count()


class Server:
    """
    Databases on a server that can be killed.

    :param postgres: The server, used by nobody else.
    """

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.postgres = postgres

    def template(self, name: str, *scripts: str) -> str:
        """Create a database to copy."""
        with psycopg.connect(self.postgres.ensure_database(name), autocommit=True) as conn:
            for script in scripts:
                conn.execute(script.encode())
        return name

    def database(self, template: str, prepare: str = "") -> str:
        """Copy a database, and return the conninfo of the copy."""
        name = f"world_{next(_numbers)}"
        with psycopg.connect(self.postgres.conninfo(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy".encode())
        with psycopg.connect(self.postgres.conninfo(name), autocommit=True) as conn:
            conn.execute(prepare.encode())
        return self.postgres.conninfo(name)

    def drop(self, conninfo: str) -> None:
        self.postgres.drop_database(str(conninfo_to_dict(conninfo)["dbname"]))

    def kill(self) -> None:
        """Kill the server, and return when it is gone."""
        pid_file = self.postgres.data_dir / "postmaster.pid"
        process = psutil.Process(int(pid_file.read_text().partition("\n")[0]))
        process.kill()
        deadline = time.monotonic() + PATIENCE_SECONDS
        with contextlib.suppress(psutil.NoSuchProcess):
            # In a container whose first process reaps no orphans it stays a zombie.
            while process.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, "the killed server is still there"
                time.sleep(0.01)

    def restart(self) -> None:
        """Start the server that was killed, and return when it has recovered."""
        self.postgres.stop()
        self.postgres.start()


class Cursor(psycopg.Cursor[Any]):
    """Asks its job for permission before each statement."""

    def execute(self, *args: Any, **kwargs: Any) -> Cursor:
        self.connection.job.before_statement()  # type: ignore[attr-defined]
        super().execute(*args, **kwargs)
        return self


class Connection(psycopg.Connection[Any]):
    """A session of a job."""

    job: Job


class Hook(LakeTSHook):
    """The hook of a job: the real one, but for where it logs in."""

    def __init__(self, job: Job) -> None:
        super().__init__(tries=1)  # the server does not come back while the job runs
        self._job = job

    def get_conn(self) -> Any:
        conn = Connection.connect(self._job.conninfo, cursor_factory=Cursor)
        conn.job = self._job
        return conn


class Job:
    """
    One run of a job, on a thread of its own.

    :param conninfo: The database.
    :param work: What is done.
    :param statement: Before which statement it stops, counted from 0, as the hook sends them.
    :param step: At which step it stops in the middle of a statement, see world.sql.
    """

    def __init__(
        self,
        conninfo: str,
        work: Callable[[LakeTSHook], object],
        *,
        statement: int | None = None,
        step: int | None = None,
    ) -> None:
        self.statement = statement
        self.step = step
        self.conninfo = make_conninfo(conninfo, options=f"-c steps.stop={step}") if step else conninfo
        self.sent = 0
        self.error: Exception | None = None
        self._work = work
        self._stands = threading.Event()
        self._go_on = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._gate = psycopg.connect(conninfo, autocommit=True) if step else None

    def _run(self) -> None:
        try:
            self._work(Hook(self))
        except Exception as err:  # when the server is killed a job fails in its own way
            self.error = err
        finally:
            self._stands.set()

    def before_statement(self) -> None:
        if self.sent == self.statement:
            self._stands.set()
            self._go_on.wait()  # for as long as it takes: if it went on, it would prove nothing
        self.sent += 1

    def start(self) -> Job:
        """Return once the job is at its stopping point, or has ended."""
        if self._gate is None:
            self._thread.start()
            assert self._stands.wait(PATIENCE_SECONDS)
            return self
        self._gate.execute("SELECT pg_advisory_lock(hashtext('steps'))")
        self._thread.start()
        waits = (
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._gate.execute(waits).fetchone():
            assert time.monotonic() < deadline
            assert not self._stands.wait(POLL_SECONDS), f"step {self.step} was not taken: {self.error}"
        return self

    def end(self) -> None:
        """Let the job find its server gone, and wait until it has given up."""
        self._go_on.set()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        if self._gate is not None:
            self._gate.close()
