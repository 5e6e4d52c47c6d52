"""Every session has retries, limits, a name and a new credential."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from asgiref.sync import async_to_sync

from airflow_provider_lakets.exceptions import (
    LakebaseConnectionError,
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakebaseSettingError,
)
from airflow_provider_lakets.hooks.lakebase import POOLED_SECONDS, LakebaseHook
from airflow_provider_lakets.hooks.lakets import LakeTSHook
from tests.relay import STARTING_UP, Relay, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Connection

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.control_plane import ControlPlane

WHO = "SELECT current_user"


@pytest.fixture
def hook(principal: ControlPlane, define: Callable[..., None]) -> LakebaseHook:
    """Return a hook that logs in with OAuth."""
    define(extra={"project": "weather"})
    return LakebaseHook()


def native(define: Callable[..., None], postgres: EmbeddedPostgres, **extra: Any) -> LakebaseHook:
    """Return a hook that logs in as a superuser, without a password."""
    define(host=postgres.socket_dir, login="postgres", password="unused", extra=extra)
    return LakebaseHook()


def setting(hook: LakebaseHook, name: str) -> str:
    with hook.get_conn() as conn:
        row = conn.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row
    return str(row[0])


@pytest.mark.parametrize(
    ("kind", "extra", "expected"),
    [
        (LakebaseHook, {}, [60, 20, 6, 0]),
        (LakeTSHook, {}, [60, 20, 6, 180_000]),
        (LakeTSHook, {"keepalives_count": 9, "tcp_user_timeout": 0}, [60, 20, 9, 0]),
    ],
    ids=["any session", "calls of LakeTS", "overridden"],
)
def test_a_connection_whose_network_is_gone_is_lost_after_three_minutes(
    define: Callable[..., None],
    postgres: EmbeddedPostgres,
    kind: type[LakebaseHook],
    extra: dict[str, Any],
    expected: list[int],
) -> None:
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)

    def options(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> list[int]:
        with socket.socket(fileno=os.dup(conn.fileno())) as connection:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            return [connection.getsockopt(socket.IPPROTO_TCP, name) for name in names]

    async def asynchronous() -> list[int]:
        async with await kind().aget_conn() as conn:
            return options(conn)

    with Relay(f"{postgres.socket_dir}/.s.PGSQL.5432", []) as relay:
        extra = {"sslmode": "disable", **extra}
        define(host="127.0.0.1", port=relay.port, login="postgres", password="unused", extra=extra)
        with kind().get_conn() as conn:
            assert options(conn) == expected
        assert asyncio.run(asynchronous()) == expected


def test_a_call_that_the_server_does_not_take_fails_as_a_lost_connection(
    define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    path, long = f"{postgres.socket_dir}/.s.PGSQL.5432", "x" * 64_000_000
    with Relay(path, [], deaf_at=b"takes_nothing") as relay:
        extra = {"sslmode": "disable", "tcp_user_timeout": 500}
        define(host="127.0.0.1", port=relay.port, login="postgres", password="unused", extra=extra)

        with pytest.raises(LakebaseConnectionError, match="the connection was refused or lost"):
            LakeTSHook(tries=1).query("SELECT %(x)s AS takes_nothing", {"x": long}, doing="Sending")


def test_pool_mints_for_each_physical_connection(hook: LakebaseHook, principal: ControlPlane) -> None:
    # One worker: on this stand-in the next credential ends the one before it, so logins must take
    # turns.
    with hook.get_pool(min_size=1, max_size=2, timeout=10, num_workers=1) as pool:
        with pool.connection() as first, pool.connection() as second:
            users = [conn.execute(WHO).fetchone() for conn in (first, second)]
        with pool.connection() as again:
            again.execute(WHO)
        lifetime = pool.max_lifetime

    assert users == [(principal.client_id,)] * 2
    assert len(set(principal.minted)) == 2
    assert lifetime == POOLED_SECONDS < 3600


def test_pool_replaces_a_connection_that_the_server_cut(
    hook: LakebaseHook, postgres: EmbeddedPostgres
) -> None:
    with hook.get_pool(timeout=10) as pool:
        with pool.connection() as conn:
            pid = conn.info.backend_pid
        with psycopg.connect(postgres.conninfo(), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

        with pool.connection() as conn:
            assert conn.info.backend_pid != pid


def test_event_loop_gets_an_autocommit_session(hook: LakebaseHook, principal: ControlPlane) -> None:
    async def ask() -> tuple[Any, bool]:
        async with await hook.aget_conn() as conn:
            cursor = await conn.execute(WHO)
            return await cursor.fetchone(), conn.autocommit

    assert asyncio.run(ask()) == ((principal.client_id,), True)


def test_event_loop_is_not_blocked_by_minting(hook: LakebaseHook, principal: ControlPlane) -> None:
    ticked = threading.Event()
    let_in = principal.on_mint

    def mint_after_a_tick(credential: str) -> None:
        assert ticked.wait(10), "the loop stood still while the credential was minted"
        let_in(credential)

    async def tick_while_logging_in() -> None:
        login = asyncio.ensure_future(hook.aget_conn())
        while not any("credentials" in request for request in principal.requests):
            await asyncio.sleep(0)
        ticked.set()
        await (await login).close()

    principal.on_mint = mint_after_a_tick
    asyncio.run(tick_while_logging_in())


def test_event_loop_answers_the_lookup_of_the_connection(
    hook: LakebaseHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    look_up = LakebaseHook.get_connection

    async def ask_supervisor() -> None:
        loops.append(asyncio.get_running_loop())

    def get_connection(conn_id: str) -> Connection:
        async_to_sync(ask_supervisor)()  # what the triggerer of Airflow 3.1 does
        return look_up(conn_id)

    async def log_in() -> None:
        loops.append(asyncio.get_running_loop())
        await (await hook.aget_conn()).close()

    monkeypatch.setattr(hook, "get_connection", get_connection)
    asyncio.run(log_in())

    assert loops[0] is loops[1]


@pytest.mark.parametrize(
    "greeting", [b"", refusal("57P03", STARTING_UP)], ids=["connection closed", "starting up"]
)
def test_suspended_endpoint_is_woken_with_a_new_credential_each_try(
    hook: LakebaseHook,
    principal: ControlPlane,
    define: Callable[..., None],
    postgres: EmbeddedPostgres,
    impatient: None,
    greeting: bytes,
) -> None:
    with Relay(f"{postgres.socket_dir}/.s.PGSQL.5432", [greeting] * 2) as relay:
        principal.put_weather("127.0.0.1")
        define(port=relay.port, extra={"project": "weather", "sslmode": "disable"})

        hook.get_conn().close()

    assert relay.callers == 3
    assert len(set(principal.minted)) == 3


def test_suspended_endpoint_is_woken_from_the_event_loop_too(
    hook: LakebaseHook,
    principal: ControlPlane,
    define: Callable[..., None],
    postgres: EmbeddedPostgres,
    impatient: None,
) -> None:
    async def log_in() -> None:
        await (await hook.aget_conn()).close()

    with Relay(f"{postgres.socket_dir}/.s.PGSQL.5432", [b""] * 2) as relay:
        principal.put_weather("127.0.0.1")
        define(port=relay.port, extra={"project": "weather", "sslmode": "disable"})

        asyncio.run(log_in())

    assert len(set(principal.minted)) == 3


def test_pooler_is_told_from_the_direct_host(
    hook: LakebaseHook,
    principal: ControlPlane,
    define: Callable[..., None],
    postgres: EmbeddedPostgres,
    impatient: None,
) -> None:
    greeting = refusal("08P01", "unsupported startup parameter in options: statement_timeout")
    with Relay(f"{postgres.socket_dir}/.s.PGSQL.5432", [greeting] * 2) as relay:
        principal.put_weather("127.0.0.1")
        define(port=relay.port, extra={"project": "weather", "sslmode": "disable"})

        with pytest.raises(LakebaseSettingError, match="Use the direct host of the endpoint"):
            hook.get_conn()

    assert relay.callers == 1


def test_endpoint_that_does_not_wake_is_given_up_on(
    hook: LakebaseHook,
    principal: ControlPlane,
    define: Callable[..., None],
    impatient: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    principal.put_weather("127.0.0.1")
    define(port=1, extra={"project": "weather", "sslmode": "disable"})

    with pytest.raises(LakebaseConnectionError, match=r"got no answer: .*Connection refused"):
        hook.get_conn()

    assert sum("Trying again" in text for text in caplog.messages) == 5


def test_endpoint_that_moved_is_found_the_next_time(
    hook: LakebaseHook,
    principal: ControlPlane,
    define: Callable[..., None],
    postgres: EmbeddedPostgres,
    impatient: None,
) -> None:
    principal.put_weather("/nowhere")
    with pytest.raises(LakebaseConnectionError):
        hook.get_conn()

    principal.put_weather(postgres.socket_dir)

    hook.get_conn().close()


def test_refused_credential_fails_at_once_and_says_whose_it_was(
    hook: LakebaseHook, principal: ControlPlane
) -> None:
    principal.on_mint = lambda token: None  # minted, but unknown to Postgres

    with pytest.raises(LakebaseCredentialError) as caught:
        hook.get_conn()

    assert len(principal.minted) == 1
    assert re.search(
        f"as role '{principal.client_id}', database 'postgres', with a credential for projects/.*/primary "
        f"of the service principal {principal.client_id} .*, was refused: .*password authentication failed.* "
        "Check that the role belongs to this identity",
        str(caught.value),
    )


def test_refused_native_password_says_how_to_put_it_right(
    postgres: EmbeddedPostgres, make_role: Callable[[str], None], define: Callable[..., None]
) -> None:
    make_role("native")
    define(host=postgres.socket_dir, login="native", password="wrong")

    with pytest.raises(
        LakebaseCredentialError, match=r"with its native Postgres password, was refused: .*Correct login"
    ):
        LakebaseHook().get_conn()


def test_unknown_database_is_a_matter_of_the_schema(
    define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    hook = native(define, postgres)
    hook.database = "no_such_database"

    with pytest.raises(LakebaseResolutionError, match="Correct the schema of the connection"):
        hook.get_conn()


def test_unknown_role_is_a_matter_of_the_login(
    define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    define(host=postgres.socket_dir, login="nobody", password="x")

    with pytest.raises(LakebaseCredentialError, match="LAKETS_PG_ROLE"):
        LakebaseHook().get_conn()


def test_misspelt_argument_for_libpq_fails_at_once(
    define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    hook = native(define, postgres, sslmod="require")

    message = r"'sslmod', which is not a known setting\. Did you mean sslmode"
    with pytest.raises(LakebaseSettingError, match=message):
        hook.get_conn()


def test_statement_timeout_ends_a_statement(define: Callable[..., None], postgres: EmbeddedPostgres) -> None:
    native(define, postgres)

    with (
        LakebaseHook(statement_timeout=timedelta(milliseconds=20)).get_conn() as conn,
        pytest.raises(psycopg.errors.QueryCanceled),
    ):
        conn.execute("SELECT pg_sleep(30)")


@pytest.mark.parametrize(
    ("options", "arguments", "expected"),
    [
        ("", {}, "12h"),
        ("-c statement_timeout=5min", {}, "5min"),
        ("-c statement_timeout=5min", {"statement_timeout": "30 s"}, "30s"),
        ("", {"statement_timeout": timedelta(hours=1)}, "1h"),
        ("", {"statement_timeout": "0"}, "0"),
    ],
    ids=["default", "extra", "argument over extra", "timedelta", "none"],
)
def test_statement_timeout_is_the_argument_s_else_the_extra_s(
    define: Callable[..., None],
    postgres: EmbeddedPostgres,
    options: str,
    arguments: dict[str, Any],
    expected: str,
) -> None:
    native(define, postgres, options=options)

    assert setting(LakebaseHook(**arguments), "statement_timeout") == expected


def test_options_of_the_hook_add_to_the_limits(
    define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    native(define, postgres)
    hook = LakebaseHook(options="-c work_mem=5MB", lock_timeout="3s")

    assert [setting(hook, name) for name in ("work_mem", "lock_timeout")] == ["5MB", "3s"]


def test_timeout_that_is_no_duration_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"lock_timeout is '1s -c role=postgres'; give a timedelta"):
        LakebaseHook(lock_timeout="1s -c role=postgres")


def test_session_carries_dag_task_and_run(
    define: Callable[..., None], postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = native(define, postgres)
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "lakets_tiering")
    monkeypatch.setenv("AIRFLOW_CTX_TASK_ID", "tier")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "manual__2026-01-01")

    assert setting(hook, "application_name") == "lakets_tiering/tier/manual__2026-01-01"


def test_cancel_ends_the_running_statement_without_a_login(
    hook: LakebaseHook, principal: ControlPlane, postgres: EmbeddedPostgres
) -> None:
    conn = hook.get_conn()
    ended: list[BaseException] = []

    def sleep() -> None:
        try:
            conn.execute("SELECT pg_sleep(60)")
        except psycopg.Error as err:
            ended.append(err)

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    with psycopg.connect(postgres.conninfo(), autocommit=True) as admin:
        # A request that comes before the statement has begun cancels nothing.
        asleep = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        while not admin.execute(asleep, [conn.info.backend_pid]).fetchone():
            pass
    hook.cancel()
    sleeper.join(30)
    conn.close()

    assert isinstance(ended[0], psycopg.errors.QueryCanceled)
    assert len(principal.minted) == 1


def test_test_connection_says_as_whom_and_to_what(hook: LakebaseHook, principal: ControlPlane) -> None:
    done, message = hook.test_connection()

    assert done
    assert message.startswith(f"Logged in to database postgres as {principal.client_id}, Postgres ")
    assert "with a credential for projects/weather/branches/production/endpoints/primary" in message


def test_test_connection_says_what_is_wrong(principal: ControlPlane, define: Callable[..., None]) -> None:
    define(extra={"project": "wether"})

    done, message = LakebaseHook().test_connection()

    assert not done
    assert "There is: projects/weather." in message
