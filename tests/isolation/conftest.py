"""Sessions that run step by step: Postgres, not the clock, shows which one waits for which."""

from __future__ import annotations

import contextlib
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

    Rows = list[tuple[Any, ...]]

# Longer than any test should take: only a hang ends here.
PATIENCE_SECONDS = 20
POLL_SECONDS = 0.002

PAUSES = """
CREATE SCHEMA IF NOT EXISTS pauses;
GRANT USAGE ON SCHEMA pauses TO PUBLIC;
-- Waits while a gate of that name is shut for this session.
CREATE OR REPLACE FUNCTION pauses.here(p_name text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET lock_timeout = '1min'
AS $$
BEGIN
    IF current_setting('pauses.gate', true) = p_name THEN
        PERFORM pg_advisory_lock_shared(hashtext('pauses'), hashtext(p_name));
        PERFORM pg_advisory_unlock_shared(hashtext('pauses'), hashtext(p_name));
    END IF;
END;
$$;
"""


class Session:
    """
    One client of the database, on a thread of its own.

    :param conninfo: The database.
    :param name: How it shows in pg_stat_activity.
    """

    def __init__(self, conninfo: str, name: str) -> None:
        self.name = name
        self.conn = psycopg.connect(conninfo, autocommit=True, application_name=name)
        # A wait that nobody expects fails the test instead of hanging it.
        self.conn.execute(f"SET statement_timeout = '{PATIENCE_SECONDS}s'".encode())
        self.notices: list[str] = []
        self.conn.add_notice_handler(lambda notice: self.notices.append(str(notice.message_primary)))
        self.pid = self.conn.info.backend_pid
        self._observer = psycopg.connect(conninfo, autocommit=True)
        self._thread = ThreadPoolExecutor(1)
        self._started: Future[Rows] | None = None

    def run(self, query: str, *parameters: Any) -> Rows:
        """Execute a statement that must not wait for anybody, and return its rows."""
        cursor = self.conn.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *parameters: Any) -> Any:
        return self.run(query, *parameters)[0][0]

    def begin(self, isolation: str = "READ COMMITTED") -> None:
        self.run(f"BEGIN ISOLATION LEVEL {isolation}")

    def commit(self) -> None:
        self.run("COMMIT")

    def rollback(self) -> None:
        self.run("ROLLBACK")

    @property
    def xid(self) -> int:
        """The open transaction's id, as the WAL shows it."""
        return int(self.value("SELECT pg_current_xact_id()::text::bigint")) & 0xFFFFFFFF

    def start(self, query: str, *parameters: Any) -> None:
        """Send a statement and return at once."""
        self._started = self._thread.submit(self.run, query, *parameters)

    def finish(self) -> Rows:
        """Return the rows of the statement that was started, or raise its error."""
        assert self._started is not None
        started, self._started = self._started, None
        return started.result(PATIENCE_SECONDS)

    def wait_blocked_by(self, other: Session) -> None:
        """Return once the statement waits for a lock that the other session holds or waits for."""
        self._wait_until(
            lambda: other.pid in self._observe("SELECT pg_blocking_pids(%s)"), f"wait for {other.name}"
        )

    def wait_for_event(self, event: str) -> None:
        """Return once the started statement waits for what pg_stat_activity calls by this name."""
        self._wait_until(
            lambda: self._observe("SELECT wait_event FROM pg_stat_activity WHERE pid = %s") == event,
            f"wait for {event}",
        )

    def _wait_until(self, is_true: Callable[[], bool], what: str) -> None:
        assert self._started is not None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_true():
            if self._started.done():
                pytest.fail(
                    f"{self.name} did not {what}: {self._started.exception() or self._started.result()}"
                )
            if time.monotonic() > deadline:
                pytest.fail(f"{self.name} did not {what} in {PATIENCE_SECONDS} s")
            time.sleep(POLL_SECONDS)

    def _observe(self, query: str) -> Any:
        row = self._observer.execute(query.encode(), [self.pid]).fetchone()
        return row[0] if row else None

    def cancel(self) -> None:
        """Cancel the statement of the session."""
        self._observer.execute("SELECT pg_cancel_backend(%s)", [self.pid])

    def close(self) -> None:
        self._observer.execute("SELECT pg_terminate_backend(%s)", [self.pid])
        self._observer.close()
        self._thread.shutdown()
        self.conn.close()


class Gate(Session):
    """Stops a session at the start (or end) of one function of LakeTS until it is opened."""

    def __init__(self, conninfo: str, key: str) -> None:
        super().__init__(conninfo, f"gate {key}")
        self.key = key
        self.shut()

    def shut(self) -> None:
        self.run("SELECT pg_advisory_lock(hashtext('pauses'), hashtext(%s))", self.key)

    def open(self) -> None:
        self.run("SELECT pg_advisory_unlock(hashtext('pauses'), hashtext(%s))", self.key)


@pytest.fixture
def sessions(database: str, stage: Stage) -> Iterator[Callable[[str], Session]]:
    """
    Yield a factory of sessions, ended with the test whatever they are at.

    Jobs are made to wait for a lock longer than they do: a busy machine takes its time from step to
    step.
    """
    stage.once(Stage.set_lock_timeout, f"{PATIENCE_SECONDS}s")
    with contextlib.ExitStack() as stack:

        def factory(name: str) -> Session:
            session = Session(database, name)
            stack.callback(session.close)
            return session

        yield factory


def _wrap(stage: Stage, function: str, before: str, after: str) -> None:
    """Put a function of the same signature in the place of one, that also runs these statements."""
    ((signature, arguments, result, names, is_set),) = stage.run(
        "SELECT oid::regprocedure::text, pg_get_function_arguments(oid), pg_get_function_result(oid),"
        " proargnames, proretset FROM pg_proc WHERE pronamespace = 'lakets'::regnamespace AND proname = %s",
        function,
    )
    inner = f"{function}__{next(_wraps)}"
    call = f"lakets.{inner}({', '.join(f'{name} => {function}.{name}' for name in names or [])})"
    body = (
        f"PERFORM {call}; {after} RETURN;"
        if result == "void"
        else (
            f"RETURN QUERY SELECT * FROM {call}; {after} RETURN;"
            if is_set
            else f"DECLARE v_result {result} := {call}; BEGIN {after} RETURN v_result; END;"
        )
    )
    stage.run(f"ALTER FUNCTION {signature} RENAME TO {inner}")
    stage.run(
        f"CREATE FUNCTION lakets.{function}({arguments}) RETURNS {result} LANGUAGE plpgsql VOLATILE"
        f" AS $wrap$ BEGIN {before} {body} END $wrap$"
    )


_wraps = itertools.count()


@pytest.fixture
def gates(database: str, stage: Stage) -> Iterator[Callable[..., Gate]]:
    """
    Yield a factory of gates: ``gates(session, "_take_dirty_buckets")`` stops the session there.

    ``when="after"`` stops it when the function has done its work.
    """
    stage.run(PAUSES)
    with contextlib.ExitStack() as stack:

        def factory(session: Session, function: str, when: str = "before") -> Gate:
            key = f"{when} {function}"
            pause = f"PERFORM pauses.here('{key}');"
            _wrap(stage, function, *((pause, "") if when == "before" else ("", pause)))
            session.run("SELECT set_config('pauses.gate', %s, false)", key)
            gate = Gate(database, key)
            stack.callback(gate.close)
            return gate

        yield factory


@pytest.fixture
def gates_at_rows(database: str, stage: Stage) -> Iterator[Callable[..., Gate]]:
    """
    Yield a factory of gates in a table: ``gates_at_rows(session, "metrics", "AFTER INSERT")``.

    A session stops there in the middle of its statement, before what LakeTS does at the end of it.
    """
    stage.run(PAUSES)
    stage.run(
        "CREATE FUNCTION pauses.at_row() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pauses.here(TG_ARGV[0]); RETURN NULL; END $$"
    )
    with contextlib.ExitStack() as stack:

        def factory(session: Session, table: str, event: str, level: str = "ROW") -> Gate:
            key = f"{event} {table}"
            stage.run(
                f"CREATE TRIGGER pause {event} ON {table} FOR EACH {level}"
                f" EXECUTE FUNCTION pauses.at_row('{key}')"
            )
            session.run("SELECT set_config('pauses.gate', %s, false)", key)
            gate = Gate(database, key)
            stack.callback(gate.close)
            return gate

        yield factory


@pytest.fixture
def unconfirmed(postgres: EmbeddedPostgres) -> Iterator[Callable[[Session], None]]:
    """
    Yield a function that makes a COMMIT hang after its record is written, before it is visible.

    It waits for a standby that there is not; :meth:`Session.cancel` lets it go on.
    """
    with psycopg.connect(postgres.conninfo(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        admin.execute("SELECT pg_reload_conf()")
        probe = Session(postgres.conninfo(), "probe")
        probe.run("SET synchronous_commit = on")

        def is_in_force() -> bool:
            probe.start("SELECT pg_logical_emit_message(true, '', '')")
            while not probe._started.done():  # type: ignore[union-attr]
                if probe._observe("SELECT wait_event FROM pg_stat_activity WHERE pid = %s") == "SyncRep":
                    probe.cancel()
                    probe.finish()
                    return True
                time.sleep(POLL_SECONDS)
            return False

        while not is_in_force():  # the server reads its settings when it gets to it
            time.sleep(POLL_SECONDS)
        probe.close()

        def leave_unconfirmed(session: Session) -> None:
            session.run("SET synchronous_commit = on")
            session.start("COMMIT")
            session.wait_for_event("SyncRep")

        yield leave_unconfirmed
        admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        admin.execute("SELECT pg_reload_conf()")
