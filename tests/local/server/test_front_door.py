"""Who may log in to the local Lakebase, and which errors the others get."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest
from psycopg.pq import TransactionStatus

from airflow_provider_lakets.local.api.faults import FaultName
from tests.local.server.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from databricks.sdk import WorkspaceClient

    from airflow_provider_lakets.local.client import LocalServer

PRIMARY = "projects/local/branches/production/endpoints/primary"


def test_a_connection_without_tls_is_refused(login: Callable[..., psycopg.Connection[Any]]) -> None:
    with pytest.raises(psycopg.OperationalError, match="no connection without TLS"):
        login(sslmode="disable")


def test_the_server_proves_who_it_is(
    login: Callable[..., psycopg.Connection[Any]], server: LocalServer
) -> None:
    trusted = server.env()["PGSSLROOTCERT"]

    assert login(sslmode="verify-full", sslrootcert=trusted).execute("SELECT 1").fetchone() == (1,)


def test_a_workspace_token_is_no_password(
    login: Callable[..., psycopg.Connection[Any]], workspace: WorkspaceClient
) -> None:
    token = workspace.config.oauth_token().access_token

    with pytest.raises(psycopg.OperationalError, match="a workspace token, not a database credential"):
        login(password=token)


def test_an_expired_credential_is_refused_and_an_open_session_lives_on(
    login: Callable[..., psycopg.Connection[Any]], mint: Callable[..., str], server: LocalServer
) -> None:
    session = login()
    server.fault(FaultName.TOKEN_EXPIRED)
    expired = mint()

    with pytest.raises(psycopg.OperationalError, match="the token has expired"):
        login(password=expired)

    assert session.execute("SELECT 1").fetchone() == (1,)


def test_a_credential_opens_its_own_endpoint_only(
    login: Callable[..., psycopg.Connection[Any]], mint: Callable[..., str]
) -> None:
    elsewhere = mint("projects/other/branches/production/endpoints/primary")

    with pytest.raises(psycopg.OperationalError, match="the token is for projects/other"):
        login(password=elsewhere)


def test_an_identity_is_not_let_in_as_another_role(
    login: Callable[..., psycopg.Connection[Any]], server: LocalServer
) -> None:
    with pytest.raises(psycopg.OperationalError, match="may not log in as role"):
        login(user=server.state.jobs.client_id)

    with pytest.raises(psycopg.OperationalError, match="may not log in as role"):
        login(user="postgres")


def test_a_native_role_logs_in_with_its_password(
    login: Callable[..., psycopg.Connection[Any]], admin: psycopg.Connection[Any]
) -> None:
    admin.execute("DROP ROLE IF EXISTS native; CREATE ROLE native LOGIN PASSWORD 'its own'")

    assert login(user="native", password="its own").info.user == "native"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        login(user="native", password="another")


def test_a_role_without_a_password_has_no_native_login(
    login: Callable[..., psycopg.Connection[Any]],
) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        login(user="postgres", password="guessed")


def test_a_server_that_does_not_start_says_why(
    login: Callable[..., psycopg.Connection[Any]],
    mint: Callable[..., str],
    server: LocalServer,
    request: pytest.FixtureRequest,
) -> None:
    in_the_way = server.folder / "branches" / "projects-other-branches-production"
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.touch()
    request.addfinalizer(in_the_way.unlink)

    with pytest.raises(psycopg.OperationalError, match=r"cannot open this session.*projects-other"):
        login(host="127.0.0.4", password=mint("projects/other/branches/production/endpoints/primary"))


@pytest.mark.parametrize(
    ("options", "before"),
    [
        ("", "SELECT 1"),
        ("-c default_transaction_read_only=off", "SELECT 1"),
        ("", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"),
        ("", "SET default_transaction_read_only = off"),
    ],
)
def test_a_read_only_endpoint_takes_no_writes(
    options: str, before: str, login: Callable[..., psycopg.Connection[Any]], mint: Callable[..., str]
) -> None:
    replica = PRIMARY.replace("primary", "replica")

    session = login(host="127.0.0.2", password=mint(replica), options=options)
    session.execute(before)

    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        session.execute("CREATE TABLE here (id int)")


def test_a_read_only_endpoint_shows_what_is_committed(
    login: Callable[..., psycopg.Connection[Any]], mint: Callable[..., str]
) -> None:
    with login(password=mint(PRIMARY)) as writer:
        writer.execute("DROP TABLE IF EXISTS seen_there; CREATE TABLE seen_there (v int)")
        writer.execute("INSERT INTO seen_there VALUES (42)")
        position = writer.execute("SELECT pg_current_wal_lsn()::text").fetchone()

    with login(host="127.0.0.2", password=mint(PRIMARY.replace("primary", "replica"))) as reader:
        there = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        wait_until(lambda: reader.execute(there, position).fetchone() == (True,), "the standby follows")

        assert reader.execute("SELECT v FROM seen_there").fetchone() == (42,)


def test_a_branch_has_a_database_of_its_own(
    login: Callable[..., psycopg.Connection[Any]], mint: Callable[..., str]
) -> None:
    query = "SELECT system_identifier FROM pg_control_system()"

    dev = login(host="127.0.0.3", password=mint("projects/local/branches/dev/endpoints/primary"))

    assert dev.execute(query).fetchone() != login().execute(query).fetchone()


def test_a_cancel_request_reaches_the_server(login: Callable[..., psycopg.Connection[Any]]) -> None:
    session = login()
    cancel = threading.Timer(0.2, session.cancel_safe)
    cancel.start()

    with pytest.raises(psycopg.errors.QueryCanceled):
        session.execute("SELECT pg_sleep(60)")
    cancel.join()

    assert session.info.transaction_status == TransactionStatus.IDLE


def test_fifty_sessions_at_once(login: Callable[..., psycopg.Connection[Any]]) -> None:
    def work(number: int) -> Any:
        row = login().execute("SELECT %s::int * 2", [number]).fetchone()
        return row[0] if row else None

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(work, range(50))) == [number * 2 for number in range(50)]


def test_large_results_and_copies_pass_whole(login: Callable[..., psycopg.Connection[Any]]) -> None:
    session = login()
    session.execute("CREATE TEMP TABLE big (n int, filler text)")

    with session.cursor().copy("COPY big FROM STDIN") as copy:
        for number in range(100_000):
            copy.write_row((number, "x" * 100))
    with session.cursor().copy("COPY big TO STDOUT") as copy:
        received = sum(len(block) for block in copy)

    assert session.execute("SELECT count(*), sum(n) FROM big").fetchone() == (100_000, 4_999_950_000)
    assert received == sum(len(f"{number}\t{'x' * 100}\n") for number in range(100_000))


def test_no_secret_is_in_the_list_of_processes_nor_in_a_log(
    login: Callable[..., psycopg.Connection[Any]], mint: Callable[..., str], server: LocalServer
) -> None:
    state = server.state
    minted = mint()
    login(password=minted)
    secrets = [minted, state.owner.client_secret, state.jobs.client_secret, state.admin_token]

    process = psutil.Process(state.pid)
    processes = [one.cmdline() for one in (process, *process.children(recursive=True))]
    logs = {log.name: log.read_text() for log in server.folder.rglob("*.log")}

    assert len(processes) >= 2  # the server and the feed
    assert [secret for secret in secrets if secret in repr((processes, logs))] == []


def test_nonsense_is_answered_and_harms_nobody(
    login: Callable[..., psycopg.Connection[Any]], server: LocalServer
) -> None:
    import socket

    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x08\0\0\0\0", b"\0" * 8, b"\xff" * 64):
        with socket.create_connection(("127.0.0.1", server.state.port), timeout=10) as raw:
            raw.sendall(nonsense)
            raw.shutdown(socket.SHUT_WR)
            answer = raw.recv(1024)
        assert answer[:1] in (b"E", b"")

    assert login().execute("SELECT 1").fetchone() == (1,)


def test_the_process_that_serves_loads_no_arrow(server: LocalServer) -> None:
    # It took a third of the start. What reads and writes Delta is another process.
    loaded = [mapped.path for mapped in psutil.Process(server.state.pid).memory_maps()]

    assert any("pydantic" in path for path in loaded)
    assert [path for path in loaded if "arrow" in path or "deltalake" in path] == []
