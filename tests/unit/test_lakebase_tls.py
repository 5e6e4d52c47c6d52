"""TLS: no credential is sent to a server that is not verified."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakebaseSettingError, LakeTSError
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from airflow_provider_lakets.login.tls import SYSTEM, secured, trusted_roots
from tests.impostor import Impostor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.control_plane import ControlPlane

HOST = "ep-x.database.example.com"
CONN_LABEL = "Connection 'lakebase_default'"
NATIVE = {"login": "somebody", "password": "sentinel-of-a-role"}


@pytest.fixture
def impostor(tmp_path: Path, impatient: None) -> Iterator[Impostor]:
    with Impostor(tmp_path, HOST) as server:
        yield server


@pytest.fixture
def connect(
    impostor: Impostor, principal: ControlPlane, define: Callable[..., None]
) -> Callable[..., type[LakeTSError]]:
    """Log in through the impostor, as with a redirected name; return the type of the error."""

    def log_in(extra: dict[str, Any], **fields: Any) -> type[LakeTSError]:
        principal.put_weather(HOST)
        place = {"host": HOST} if "password" in fields else {}
        path = {"hostaddr": "127.0.0.1", **({} if fields.get("password") else {"project": "weather"})}
        define(port=impostor.port, extra={**path, **extra}, **place, **fields)
        with pytest.raises(LakeTSError) as caught:
            LakebaseHook().get_conn()
        return caught.type

    return log_in


@pytest.mark.parametrize("fields", [{}, NATIVE], ids=["OAuth", "native"])
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"PGSSLMODE": "disable"},
        {"PGSSLMODE": "require"},
        {"PGGSSENCMODE": "prefer"},
        {"PGSERVICE": "elsewhere"},
        {"PGOPTIONS": "-c ssl=off"},
        {"PGREQUIRESSL": "0", "PGSSLNEGOTIATION": "postgres"},
    ],
    ids=lambda environment: "+".join(environment) or "nothing set",
)
def test_man_in_the_middle_gets_nothing(
    connect: Callable[..., type[LakeTSError]],
    impostor: Impostor,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    fields: dict[str, str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    kind = connect({}, **fields)

    assert issubclass(kind, (LakebaseCredentialError, LakebaseSettingError))
    assert impostor.received == []


@pytest.mark.parametrize("fields", [{}, NATIVE], ids=["OAuth", "native"])
@pytest.mark.parametrize(
    "extra",
    [
        {"sslmode": "disable", "conninfo": "hostaddr=127.0.0.1"},
        {"conninfo": "sslmode=disable"},
        {"service": "elsewhere"},
        {"gssencmode": "prefer"},
        {"sslmode": ["disable"]},
        {"sslmode": "none"},
        {"options": "-c x=y", "sslkeylogfile": "/tmp/keys"},
        {"passfile": "/tmp/pass"},
    ],
    ids=lambda extra: "+".join(extra),
)
def test_no_setting_leads_round_the_check(
    connect: Callable[..., type[LakeTSError]],
    impostor: Impostor,
    extra: dict[str, Any],
    fields: dict[str, str],
) -> None:
    assert connect(extra, **fields) is LakebaseSettingError
    assert impostor.received == []
    assert impostor.callers == 0


@pytest.mark.parametrize("fields", [{}, NATIVE], ids=["OAuth", "native"])
@pytest.mark.parametrize(
    "database",
    [
        "hostaddr=127.0.0.1 sslmode=disable",
        "postgresql://127.0.0.1/postgres?sslmode=disable",
        "service=elsewhere",
    ],
)
def test_name_of_a_database_holds_no_settings(
    connect: Callable[..., type[LakeTSError]], impostor: Impostor, database: str, fields: dict[str, str]
) -> None:
    """Programs of libpq read settings from the name of a database."""
    assert connect({}, **fields, schema=database) is LakebaseCredentialError
    assert impostor.received == []


def test_mode_without_certificates_must_be_asked_for_and_then_is_obeyed(
    connect: Callable[..., type[LakeTSError]], impostor: Impostor, principal: ControlPlane
) -> None:
    connect({"sslmode": "require"})

    assert principal.minted[0].encode() in impostor.received[1]


def test_server_with_a_certificate_of_a_trusted_authority_is_answered(
    connect: Callable[..., type[LakeTSError]], impostor: Impostor
) -> None:
    connect({"sslrootcert": impostor.authority}, **NATIVE)

    assert NATIVE["password"].encode() in impostor.received[1]


def test_certificate_of_another_host_is_not_taken(
    tmp_path: Path, principal: ControlPlane, define: Callable[..., None]
) -> None:
    with Impostor(tmp_path, "another.example.com") as server:
        extra = {"hostaddr": "127.0.0.1", "sslrootcert": server.authority}
        define(host=HOST, port=server.port, extra=extra, **NATIVE)

        with pytest.raises(LakebaseCredentialError, match="does not match host name") as caught:
            LakebaseHook().get_conn()

    assert "Without sslmode the certificate of the server must" in str(caught.value)
    assert server.received == []


@pytest.mark.parametrize(
    ("host", "settings", "variable", "mode"),
    [
        (HOST, {}, None, "verify-full"),
        ("10.0.0.7", {}, None, "verify-full"),
        ("localhost.example.com", {}, None, "verify-full"),
        ("localhost", {"hostaddr": "10.0.0.7"}, None, "verify-full"),
        (HOST, {"hostaddr": "127.0.0.1"}, None, "verify-full"),
        (f"localhost,{HOST}", {}, None, "verify-full"),
        (HOST, {}, "require", "verify-full"),
        (HOST, {}, "disable", "verify-full"),
        (HOST, {"sslmode": "require"}, "verify-full", "require"),
        (HOST, {"sslmode": "verify-ca"}, "disable", "verify-ca"),
        ("localhost", {}, None, "require"),
        ("/run/postgresql", {}, "disable", "disable"),
        ("127.0.0.1", {"sslmode": "verify-full"}, "disable", "verify-full"),
    ],
)
def test_another_machine_proves_itself_unless_the_connection_says_otherwise(
    bare_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    settings: dict[str, str],
    variable: str | None,
    mode: str,
) -> None:
    if variable:
        monkeypatch.setenv("PGSSLMODE", variable)

    found = secured(settings, host, CONN_LABEL)

    assert found["sslmode"] == mode
    assert found["gssencmode"] == "disable"
    assert mode != "verify-full" or found["sslrootcert"]


@pytest.mark.parametrize("name", ["PGHOSTADDR", "PGSERVICE"])
def test_variable_that_would_lead_elsewhere_is_refused(
    bare_environment: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "10.0.0.7")

    with pytest.raises(LakebaseSettingError, match=f"the environment sets {name}.*Unset {name}"):
        secured({}, "localhost", CONN_LABEL)


def test_address_in_the_extra_wins_over_the_environments(
    bare_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOSTADDR", "10.0.0.7")

    assert secured({"hostaddr": "127.0.0.1"}, "localhost", CONN_LABEL)["sslmode"] == "require"


@pytest.mark.parametrize(
    ("settings", "variable", "found"),
    [({}, "/env.pem", "/env.pem"), ({"sslrootcert": "/own.pem"}, "/env.pem", "/own.pem")],
)
def test_authority_is_the_connections_else_the_environments(
    bare_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    variable: str,
    found: str,
) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", variable)

    assert secured(settings, HOST, CONN_LABEL)["sslrootcert"] == found


def test_operating_systems_authorities_are_a_file_where_libpqs_own_openssl_finds_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)

    roots = trusted_roots()

    # The binary package of psycopg contains an OpenSSL that searches a folder of its build machine.
    assert os.path.isfile(roots) if psycopg.pq.__impl__ == "binary" else roots == SYSTEM


def test_system_is_left_to_libpq_where_the_environment_says_what_that_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))

    assert trusted_roots() == SYSTEM
