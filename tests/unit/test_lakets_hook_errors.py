"""Which errors the hook retries, its messages, and how it is cancelled."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from airflow_provider_lakets.exceptions import (
    PERMANENT,
    LakebaseConnectionError,
    LakeTSArgumentError,
    LakeTSContendedError,
    LakeTSError,
    LakeTSNotInstalledError,
    LakeTSPrivilegeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from tests.lab import Lab


@pytest.fixture
def engine() -> str:
    """One engine is enough, because these tests cover the hook."""
    return "0.1"


def job(lab: Lab, body: str) -> None:
    """Replace lakets.untier_chunk."""
    lab.conn.execute("CREATE TABLE IF NOT EXISTS tries (at timestamptz DEFAULT now())")
    lab.conn.execute(
        "CREATE OR REPLACE FUNCTION lakets.untier_chunk(p_chunk_name text) RETURNS void LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} END $$"
    )


def loses_its_connection(lab: Lab, function: str) -> None:
    """Make a function of LakeTS count its calls and lose the connection, with its own arguments."""
    head = lab.value(
        "SELECT format('lakets.%%I(%%s) RETURNS %%s', proname, pg_get_function_arguments(oid),"
        f" pg_get_function_result(oid)) FROM pg_proc WHERE oid = to_regproc('lakets.{function}')"
    )
    value = "" if head.endswith("void") else "1"
    lab.conn.execute(
        f"CREATE OR REPLACE FUNCTION {head} LANGUAGE plpgsql AS $$ BEGIN"
        f" PERFORM nextval('tried'), pg_terminate_backend(pg_backend_pid()); RETURN {value}; END $$"
    )


class Sequence:
    """A counter of calls, which survives a rollback."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lab.conn.execute("CREATE SEQUENCE tried")

    @property
    def count(self) -> int:
        return int(self.lab.value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM tried"))


@pytest.mark.parametrize(
    ("state", "error"),
    [("55P03", LakeTSContendedError), ("40P01", LakeTSContendedError), ("40001", LakeTSContendedError)],
    ids=["lock timeout", "deadlock", "serialisation failure"],
)
def test_contention_is_tried_again_and_then_reported(lab: Lab, state: str, error: type[LakeTSError]) -> None:
    tried = Sequence(lab)
    job(lab, f"PERFORM nextval('tried'); RAISE EXCEPTION 'busy' USING ERRCODE = '{state}';")

    with pytest.raises(error, match="another session holds a lock that it needs"):
        lab.hook(tries=3).untier_chunk("x")

    assert tried.count == 3


def test_contention_that_passes_is_not_noticed(lab: Lab) -> None:
    tried = Sequence(lab)
    job(lab, "IF nextval('tried') < 3 THEN RAISE EXCEPTION 'busy' USING ERRCODE = '55P03'; END IF;")

    lab.hook().untier_chunk("x")

    assert tried.count == 3


def test_a_lost_connection_is_opened_again(lab: Lab) -> None:
    tried = Sequence(lab)
    job(lab, "IF nextval('tried') < 2 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;")

    lab.hook().untier_chunk("x")

    assert tried.count == 2


def test_a_session_that_was_cut_while_idle_is_opened_again(lab: Lab) -> None:
    with lab.hook().session() as hook:
        hook.version()
        lab.conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        assert hook.version() == "0.1.3"


def test_a_connection_that_stays_lost_is_reported_as_lost(lab: Lab) -> None:
    job(lab, "PERFORM pg_terminate_backend(pg_backend_pid());")

    with pytest.raises(LakebaseConnectionError, match="refused or lost"):
        lab.hook(tries=2).untier_chunk("x")


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("enable_sync", lambda hook: hook.enable_sync("m")),
        ("drop_chronotable", lambda hook: hook.drop_chronotable("m")),
        ("add_retention_policy", lambda hook: hook.add_retention_policy("m", "1 day")),
    ],
    ids=["enable_sync", "drop_chronotable", "add_retention_policy"],
)
def test_a_call_that_would_do_more_the_second_time_is_not_made_again(
    lab: Lab, function: str, call: Callable[[LakeTSHook], Any]
) -> None:
    # The server may have committed before the connection was lost.
    tried = Sequence(lab)
    loses_its_connection(lab, function)

    with pytest.raises(LakebaseConnectionError, match="refused or lost"):
        call(lab.hook(tries=3))

    assert tried.count == 1


@pytest.mark.parametrize("engine", ["ours"])
def test_a_number_of_chunks_is_not_dropped_twice_by_force(lab: Lab) -> None:
    tried = Sequence(lab)
    loses_its_connection(lab, "execute_retention")

    with pytest.raises(LakebaseConnectionError, match="refused or lost"):
        lab.hook(tries=3).execute_retention("m", force=True, max_chunks=2)

    assert tried.count == 1


@pytest.mark.parametrize("state", ["P0001", "22023", "55000", "42704", "42P01"])
def test_a_refusal_fails_at_once_with_the_servers_words(lab: Lab, state: str) -> None:
    tried = Sequence(lab)
    job(
        lab,
        "PERFORM nextval('tried');"
        f" RAISE EXCEPTION 'No such thing.' USING ERRCODE = '{state}', HINT = 'Look it up.';",
    )

    with pytest.raises(LakeTSArgumentError, match=r"lakets\.untier_chunk.*No such thing\. Look it up"):
        lab.hook().untier_chunk("x")

    assert tried.count == 1


def test_an_error_of_another_kind_is_told_in_the_servers_words(lab: Lab) -> None:
    job(lab, "PERFORM 1 / 0;")

    with pytest.raises(LakeTSError, match="division by zero") as caught:
        lab.hook().untier_chunk("x")

    assert isinstance(caught.value.__cause__, psycopg.errors.DivisionByZero)


@pytest.mark.parametrize(
    "call",
    [
        lambda hook: hook.chronotables(),
        lambda hook: hook.refresh(),
        lambda hook: hook.tier_chunk("public.metrics_20250101_000000"),
        lambda hook: hook.partition(),
        lambda hook: hook.execute_retention("metrics"),
    ],
    ids=["list", "refresh", "tier", "partition", "retention"],
)
def test_a_database_without_lakets_is_told_how_to_get_it(lab: Lab, call: Callable[[LakeTSHook], Any]) -> None:
    lab.conn.execute("DROP SCHEMA lakets CASCADE")

    with pytest.raises(LakeTSNotInstalledError, match=r"lakets install.*LakeTSInstallOperator"):
        call(lab.hook())


@pytest.mark.parametrize(
    ("body", "helps"),
    [
        ("PERFORM 1 / 0;", False),
        ("PERFORM (SELECT n FROM generate_series(1, 2) AS n);", False),
        ("INSERT INTO strict VALUES (NULL);", False),
        ("INSERT INTO strict VALUES (-1);", False),
        ("INSERT INTO strict VALUES (1), (1);", True),  # the other one may be of a session that rolls back
        ("RAISE EXCEPTION USING ERRCODE = 'disk_full';", True),
        ("RAISE EXCEPTION USING ERRCODE = 'query_canceled';", True),
    ],
)
def test_a_retry_is_of_no_help_where_data_are_refused(lab: Lab, body: str, helps: bool) -> None:
    lab.conn.execute("CREATE TABLE strict (n integer NOT NULL UNIQUE CHECK (n > 0))")
    job(lab, body)

    with pytest.raises(LakeTSError) as raised:
        lab.hook().untier_chunk("a.b")

    assert isinstance(raised.value, PERMANENT) is not helps


def test_what_is_wrong_with_all_ends_the_list(lab: Lab) -> None:
    lab.conn.execute("DROP FUNCTION lakets.tier_chunk")

    first, second = lab.hook().tier(["a.b", "a.c"])

    assert (first.outcome, first.retryable) == ("failed", False)
    assert "lakets install" in str(first.detail)
    assert (second.outcome, second.detail) == ("skipped", "not tried after the failure of a.b")


def test_a_function_that_is_missing_is_told_like_a_missing_lakets(lab: Lab) -> None:
    lab.conn.execute("DROP FUNCTION lakets.chunk_health()")

    with pytest.raises(LakeTSNotInstalledError, match=r"lakets\.chunk_health"):
        lab.hook().chunk_health()


def test_a_missing_right_names_the_role_and_the_object(lab: Lab, clerk: str) -> None:
    lab.table("metrics")

    (result,) = lab.hook().partition(future_count=9)

    assert (result.outcome, result.retryable) == ("failed", False)
    assert clerk in str(result.detail)
    assert "must be owner of table metrics" in str(result.detail)


def test_no_right_on_the_schema_is_no_missing_lakets(lab: Lab, clerk: str) -> None:
    lab.conn.execute(f"REVOKE USAGE ON SCHEMA lakets FROM {clerk}")

    with pytest.raises(LakeTSPrivilegeError, match=f"{clerk}.*permission denied for schema lakets"):
        lab.hook().chronotables()


def test_every_call_of_a_session_uses_one_login(lab: Lab) -> None:
    with lab.hook().session() as hook:
        pids = {hook.query("SELECT pg_backend_pid() AS pid", doing="x")[0]["pid"] for _ in range(3)}

    assert len(pids) == 1


def test_a_session_is_closed_at_its_end(lab: Lab) -> None:
    with lab.hook().session() as hook:
        (row,) = hook.query("SELECT pg_backend_pid() AS pid", doing="x")

    assert not _is_alive(lab, row["pid"])


def test_a_call_outside_a_session_leaves_none_behind(lab: Lab) -> None:
    (row,) = lab.hook().query("SELECT pg_backend_pid() AS pid", doing="x")

    assert not _is_alive(lab, row["pid"])


def _is_alive(lab: Lab, pid: int) -> bool:
    """Return whether a backend stays; a terminated one takes a moment to end."""
    for _ in range(200):
        if not lab.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid):
            return False
        lab.conn.execute("SELECT pg_sleep(0.01)")
    return True


def test_cancel_ends_the_running_statement(lab: Lab) -> None:
    job(lab, "PERFORM pg_sleep(60);")
    hook = lab.hook()

    with hook.session(), _cancelled_when_asleep(lab, hook.cancel), pytest.raises(LakeTSError, match="cancel"):
        hook.untier_chunk("x")


def test_cancel_starts_nothing_new(lab: Lab) -> None:
    with lab.hook().session() as hook:
        hook.cancel()

        with pytest.raises(LakeTSError, match="stopped"):
            hook.version()


def test_a_borrower_torn_out_of_its_statement_leaves_none_running(lab: Lab) -> None:
    hook = lab.hook()
    stack = contextlib.ExitStack()
    stack.enter_context(hook.session())
    conn = stack.enter_context(hook.borrow_session())
    conn.pgconn.send_query(b"SELECT pg_sleep(60)")
    pid = conn.info.backend_pid
    lab.wait_until_asleep()

    stack.close()  # as a task timeout does it, in the middle of a statement

    assert not _is_alive(lab, pid)


class _cancelled_when_asleep:  # noqa: N801
    """Call cancel from another thread as soon as some session of the database sleeps."""

    def __init__(self, lab: Lab, cancel: Callable[[], None]) -> None:
        self.lab = lab
        self.thread = threading.Thread(target=self._run, args=[cancel])

    def _run(self, cancel: Callable[[], None]) -> None:
        self.lab.wait_until_asleep()
        cancel()

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.thread.join()
