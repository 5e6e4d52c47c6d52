"""The reaction of hook and operators to each fault: wake, retry, wait, or fail with the reason."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakeTSError
from airflow_provider_lakets.hooks.lakets import LakeTSHook
from airflow_provider_lakets.local.api.faults import FaultName
from airflow_provider_lakets.local.client import LocalServerError
from airflow_provider_lakets.local.feed import control
from airflow_provider_lakets.monitoring.asleep import is_asleep
from tests.superuser import superuser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.client import LocalServer

CHUNK = "public.metrics_20200101_000000"


@pytest.fixture
def hook(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[LakeTSHook]:
    """Yield a hook that has only the environment; its log must not show secrets."""
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    caplog.set_level("DEBUG")
    yield LakeTSHook()
    # Tokens are JWTs, which all begin like this.
    assert "eyJ" not in caplog.text
    assert server.state.owner.client_secret not in caplog.text


def assert_no_secret(error: BaseException, server: LocalServer) -> None:
    """Check an exception and all its causes."""
    seen: BaseException | None = error
    while seen is not None:
        assert "eyJ" not in repr(seen) + str(seen)
        assert server.state.owner.client_secret not in repr(seen) + str(seen)
        seen = seen.__cause__ or seen.__context__


def one(hook: LakeTSHook) -> Any:
    return hook.get_first("SELECT 1")


def test_a_suspended_endpoint_is_woken(hook: LakeTSHook, server: LocalServer) -> None:
    server.fault(FaultName.SUSPENDED, times=2)

    assert one(hook) == (1,)
    assert server.faults() == {}


def test_the_workspace_says_that_an_endpoint_sleeps_until_a_login_has_woken_it(
    hook: LakeTSHook, server: LocalServer
) -> None:
    awake = is_asleep(hook)
    server.fault(FaultName.SUSPENDED, times=1)
    asleep = is_asleep(hook), is_asleep(hook)
    one(hook)

    assert (awake, asleep, is_asleep(hook)) == (False, (True, True), False)


def test_minting_that_is_throttled_is_asked_again(hook: LakeTSHook, server: LocalServer) -> None:
    server.fault(FaultName.MINT_429, times=1)
    started = time.monotonic()

    assert one(hook) == (1,)
    assert time.monotonic() - started >= 1  # Retry-After


def test_minting_that_fails_once_is_asked_again(hook: LakeTSHook, server: LocalServer) -> None:
    server.fault(FaultName.MINT_500, times=1)

    assert one(hook) == (1,)
    assert server.faults() == {}


def test_slow_minting_is_waited_for(hook: LakeTSHook, server: LocalServer) -> None:
    server.fault(FaultName.MINT_SLOW, times=1, seconds=2)
    started = time.monotonic()

    assert one(hook) == (1,)
    assert time.monotonic() - started >= 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(FaultName.TOKEN_EXPIRED, "the token has expired", id="expired"),
        pytest.param(FaultName.TOKEN_WRONG_KIND, "a workspace token", id="wrong kind"),
    ],
)
def test_a_credential_that_is_refused_fails_at_once(
    hook: LakeTSHook, server: LocalServer, fault: FaultName, words: str
) -> None:
    server.fault(fault)
    one_login = time.monotonic()

    with pytest.raises(LakebaseCredentialError, match=words) as refused:
        one(hook)

    assert time.monotonic() - one_login < 5
    assert_no_secret(refused.value, server)


@pytest.fixture
def lakets(hook: LakeTSHook, server: LocalServer, admin: psycopg.Connection[Any]) -> Iterator[LakeTSHook]:
    """Yield a hook on a database with a synced ChronoTable that has one cold chunk."""
    hook.install()
    with hook.get_conn() as conn:
        conn.execute("CREATE TABLE metrics (ts timestamptz NOT NULL, value float8)")
        conn.execute("INSERT INTO metrics VALUES ('2020-01-01', 1)")
        conn.execute("SELECT lakets.create_chronotable('metrics', 'ts', '1 day')")
        conn.execute("SELECT lakets.enable_sync('metrics')")
        conn.execute("SELECT lakets.add_tiering_policy('metrics', '30 days')")
    yield hook
    # A statement that lost its client may still hold its locks for a moment, and the feed may be
    # reading.
    dropping = Retrying(
        retry=retry_if_exception_type(psycopg.errors.LockNotAvailable),
        stop=stop_after_attempt(10),
        reraise=True,
    )
    dropping(admin.execute, "SELECT lakets.drop_chronotable('metrics')")


def flushed(server: LocalServer) -> None:
    control.wait_flushed(superuser(server), 30)


def test_a_session_cut_between_two_calls_is_opened_again(lakets: LakeTSHook, server: LocalServer) -> None:
    with lakets.session():
        lakets.chronotables()
        assert server.fault(FaultName.CUT)["sessions"] >= 1

        assert [table.name for table in lakets.chronotables()] == ["public.metrics"]


def test_a_statement_cut_in_the_middle_is_made_again(
    lakets: LakeTSHook, server: LocalServer, admin: psycopg.Connection[Any]
) -> None:
    (table,) = lakets.chronotables()
    made: list[int] = []
    call = threading.Thread(target=lambda: made.append(lakets.ensure_partitions(table.id, future_count=9)))
    with admin.transaction():
        admin.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
        call.start()
        wait_for_a_waiter(server)
        server.fault(FaultName.CUT)
    call.join()

    # The server may have ended the first try after its client was gone: what counts is what is
    # there.
    future = lakets.get_first("SELECT count(*) FROM lakets._chunk_metadata WHERE range_start > now()")
    assert len(made) == 1
    assert future == (9,)


def wait_for_a_waiter(server: LocalServer) -> None:
    """Return once a session waits for a lock."""
    with psycopg.connect(superuser(server), autocommit=True) as conn:
        deadline = time.monotonic() + 30
        while conn.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is None:
            assert time.monotonic() < deadline, "nobody waits"
            time.sleep(0.01)


def test_a_session_ended_by_an_administrator_is_opened_again(lakets: LakeTSHook, server: LocalServer) -> None:
    with lakets.session():
        lakets.chronotables()
        assert server.fault(FaultName.SHUTDOWN)["sessions"] >= 1

        assert [table.name for table in lakets.chronotables()] == ["public.metrics"]


def test_while_the_feed_stands_still_chunks_are_deferred_and_then_tiered(
    lakets: LakeTSHook, server: LocalServer
) -> None:
    flushed(server)
    server.fault(FaultName.FEED_PAUSED)
    lakets.run("UPDATE metrics SET value = 2")
    (before,) = lakets.tier([CHUNK])

    server.clear_faults()
    flushed(server)
    (after,) = lakets.tier([CHUNK])

    assert (before.outcome, before.detail) == ("deferred", "changes to it are not known to be flushed yet")
    assert after.outcome == "tiered"


def test_a_lagging_feed_defers(lakets: LakeTSHook, server: LocalServer) -> None:
    flushed(server)
    server.fault(FaultName.FEED_LAGGING, seconds=600)
    flushed(server)
    lakets.run("UPDATE metrics SET value = 3")

    (result,) = lakets.tier([CHUNK])

    assert result.outcome == "deferred"


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        pytest.param(FaultName.FEED_SKIPPED, "SKIPPED", id="skipped"),
        pytest.param(FaultName.FEED_UNREADABLE, "NONE", id="unreadable"),
    ],
)
def test_a_feed_that_says_nothing_defers(
    lakets: LakeTSHook, server: LocalServer, fault: FaultName, status: str
) -> None:
    flushed(server)
    server.fault(fault)
    if fault is FaultName.FEED_SKIPPED:
        wait_until_skipped(server)

    (result,) = lakets.tier([CHUNK])

    assert result.outcome == "deferred"
    assert status in (result.detail or "")


def wait_until_skipped(server: LocalServer) -> None:
    with psycopg.connect(superuser(server), autocommit=True) as conn:
        deadline = time.monotonic() + 30
        while conn.execute("SELECT FROM wal2delta.tables WHERE status = 'SKIPPED'").fetchone() is None:
            assert time.monotonic() < deadline, "not skipped"
            time.sleep(0.05)


def test_a_full_disk_holds_the_proof_back_until_there_is_room(
    lakets: LakeTSHook, server: LocalServer
) -> None:
    flushed(server)
    server.fault(FaultName.DISK_FULL)
    lakets.run("UPDATE metrics SET value = 4")
    with pytest.raises(control.FeedNotCaughtUpError):
        control.wait_flushed(superuser(server), 3)
    (before,) = lakets.tier([CHUNK])

    server.clear_faults()
    flushed(server)
    (after,) = lakets.tier([CHUNK])

    assert (before.outcome, after.outcome) == ("deferred", "tiered")


def test_retention_drops_nothing_that_the_feed_has_not_flushed(
    lakets: LakeTSHook, server: LocalServer
) -> None:
    flushed(server)
    lakets.run("SELECT lakets.add_retention_policy('metrics', '60 days')")
    server.fault(FaultName.FEED_PAUSED)
    lakets.run("UPDATE metrics SET value = 5")

    result = lakets.retain("public.metrics")

    assert result.dropped == []
    assert [deferred.chunk for deferred in result.deferred] == [CHUNK]
    assert lakets.get_first("SELECT value FROM metrics") == (5.0,)


def test_faults_need_the_admin_token(server: LocalServer) -> None:
    import httpx

    answer = httpx.post(f"{server.state.url}/local/faults/cut", json={})

    assert answer.status_code == 403


def test_faults_of_a_server_that_does_not_run_are_refused(tmp_path: Any) -> None:
    from airflow_provider_lakets.local.client import LocalServer

    with pytest.raises(LocalServerError, match="lakets local up"):
        LocalServer(tmp_path).fault(FaultName.CUT)


def test_what_the_hook_raises_is_always_one_of_ours(hook: LakeTSHook, server: LocalServer) -> None:
    server.fault(FaultName.MINT_500)

    with pytest.raises(LakeTSError) as refused:
        one(hook)

    assert_no_secret(refused.value, server)


def test_what_comes_of_each_fault_is_measured_and_documented() -> None:
    document = (Path(__file__).parents[3] / "docs/local.md").read_text()
    _, _, measured = document.partition("<!-- faults -->")

    assert {*re.findall(r"^\| `([a-z0-9-]+)` \|", measured, re.MULTILINE)} == {*FaultName}
