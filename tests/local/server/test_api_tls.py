"""A local Lakebase for other machines: its REST API uses TLS too, and its authority is stable."""

from __future__ import annotations

import socket
import stat
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.sdk import Connection

from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from airflow_provider_lakets.local.api.faults import FaultName
from airflow_provider_lakets.local.client import LocalServer, LocalServerError
from airflow_provider_lakets.local.door.authority import certificate, client_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg


@pytest.fixture(scope="module")
def private(postgres_version: int) -> Iterator[LocalServer]:
    """Start a Lakebase whose REST API is behind TLS."""
    with (
        tempfile.TemporaryDirectory(prefix="tls-", ignore_cleanup_errors=True) as folder,
        LocalServer(Path(folder), version=postgres_version, arguments=["--api-tls"]) as server,
    ):
        yield server


@pytest.fixture
def trusting(private: LocalServer, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    """Set the environment of this process to what the server prints."""
    for name, value in private.env().items():
        monkeypatch.setenv(name, value)
    return private


def test_the_sdk_signs_in_over_tls(trusting: LocalServer) -> None:
    from databricks.sdk import WorkspaceClient

    assert trusting.state.url.startswith("https://")
    assert WorkspaceClient().current_user.me().user_name == trusting.state.owner.client_id


def test_the_hook_resolves_mints_and_logs_in_over_tls(trusting: LocalServer) -> None:
    connection = Connection(conn_id="there", conn_type="lakebase", extra='{"sslmode": "verify-full"}')

    with closing(LakebaseHook("there", connection=connection).get_conn()) as session:
        row = session.execute("SELECT current_user::text").fetchone()

    assert row == (trusting.state.owner.client_id,)


def test_who_does_not_know_the_authority_sends_no_secret(trusting: LocalServer) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(trusting.state.url)


def test_clear_text_gets_no_answer(private: LocalServer) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(private.state.url.replace("https:", "http:"))


def test_faults_are_told_over_tls(private: LocalServer) -> None:
    private.fault(FaultName.MINT_500, times=1)

    assert private.clear_faults() == ["mint-500"]


def test_a_port_that_somebody_counts_on_is_not_replaced_by_another(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        server = LocalServer(tmp_path, arguments=["--api-port", port])

        with pytest.raises(LocalServerError, match="Address already in use"):
            server.start()


def test_the_authority_outlives_a_run(tmp_path: Path) -> None:
    certificate(tmp_path, ["lakebase"])
    before = client_context(tmp_path).get_ca_certs()

    certificate(tmp_path, ["lakebase"])

    assert client_context(tmp_path).get_ca_certs() == before


@pytest.mark.parametrize("lost", ["ca.key", "ca.pem"])
def test_half_an_authority_is_replaced_whole(tmp_path: Path, lost: str) -> None:
    certificate(tmp_path, ["lakebase"])
    before = (tmp_path / "ca.pem").read_bytes()
    (tmp_path / lost).unlink()

    certificate(tmp_path, ["lakebase"])
    after = (tmp_path / "ca.pem").read_bytes()
    certificate(tmp_path, ["lakebase"])

    assert before != after == (tmp_path / "ca.pem").read_bytes()


def test_only_the_owner_reads_the_key_of_the_authority(tmp_path: Path) -> None:
    certificate(tmp_path, ["lakebase"])

    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600


def test_the_owner_makes_roles_and_hands_them_out(
    login: Callable[..., psycopg.Connection[Any]], server: LocalServer
) -> None:
    session = login()
    jobs = server.state.jobs.client_id
    session.execute("DROP ROLE IF EXISTS tables_owner")

    session.execute(f'CREATE ROLE tables_owner; GRANT tables_owner TO "{jobs}"')

    found = session.execute("SELECT pg_has_role(%s, 'tables_owner', 'USAGE')", [jobs]).fetchone()
    assert found == (True,)
    session.execute("DROP ROLE tables_owner")
