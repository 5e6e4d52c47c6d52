"""Mistakes of users are understood, or refused with advice."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakebaseSettingError, LakeTSError
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from airflow_provider_lakets.login.login import Login
from airflow_provider_lakets.login.login_error import login_error
from airflow_provider_lakets.login.who.find_identity import find_identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

HOST = "ep-x.example.com"
SECRET = "sentinel-of-a-role"


def arguments() -> dict[str, Any]:
    """Return the arguments of a login with the default connection."""
    return Login(LakebaseHook().connection).fresh()


@pytest.mark.parametrize(
    "conn_type", ["databricks", "mysql", "snowflake", "http"], ids=lambda conn_type: str(conn_type)
)
def test_password_of_another_service_is_not_sent(define: Callable[..., None], conn_type: str) -> None:
    define(conn_type=conn_type, host=HOST, login="somebody", password=SECRET)

    with pytest.raises(LakebaseSettingError, match=f"is of type '{conn_type}'.* of type lakebase") as caught:
        LakebaseHook().get_conn()

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("stored", ["not a uri", f"{HOST}/databricks_postgres", f"me:{SECRET}@{HOST}/db"])
def test_text_that_is_no_connection_string_is_not_read_as_one(
    define: Callable[..., None], monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    define(stored)
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", "projects/weather")

    with pytest.raises(LakebaseSettingError) as caught:
        LakebaseHook().get_conn()

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("[::1]", "::1"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("::1", "::1"),
        ("https://ep-x.example.com/", "ep-x.example.com"),
        (" ep-x.example.com ", "ep-x.example.com"),
        ("[::1],ep-x.example.com", "::1,ep-x.example.com"),
    ],
)
def test_host_may_be_written_as_in_a_url(define: Callable[..., None], host: str, found: str) -> None:
    define(host=host, login="somebody", password=SECRET)

    assert arguments()["host"] == found


@pytest.mark.parametrize("field", ["schema", "login", "host"])
def test_field_of_spaces_is_empty(define: Callable[..., None], field: str) -> None:
    given = {"host": "127.0.0.1", "login": "somebody", "password": SECRET, "schema": "postgres"}
    define(**{**given, field: "  "}, extra={"connection_string": "lakebase://somebody@127.0.0.1/postgres"})

    assert arguments()["host"] == "127.0.0.1"


@pytest.mark.parametrize("name", ["token", "client_id", "client_secret", "profile", "azure_tenant_id"])
def test_identity_is_asked_for_where_it_belongs(define: Callable[..., None], name: str) -> None:
    define(host=HOST, extra={name: SECRET})

    with pytest.raises(LakebaseSettingError, match=f"sets {name}.* databricks_conn_id") as caught:
        arguments()

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "extra",
    [
        {"sslpassword": f"{SECRET}\n-"},
        {"sslpassword": SECRET, "connection_string": f"lakebase://{HOST}/postgres?sslpassword=another"},
        {"sslpassword": "another", "connection_string": f"lakebase://{HOST}/postgres?sslpassword={SECRET}"},
    ],
    ids=["control character", "contradicted", "contradicting"],
)
def test_setting_that_is_a_secret_is_refused_unseen(define: Callable[..., None], extra: Any) -> None:
    define(host=HOST, login="somebody", password="x", extra=extra)

    with pytest.raises(LakebaseSettingError, match="sslpassword") as caught:
        arguments()

    assert SECRET not in str(caught.value)


def test_whole_number_may_be_written_with_a_point(define: Callable[..., None]) -> None:
    define(host="127.0.0.1", login="somebody", password=SECRET, extra={"connect_timeout": 3.0})

    assert arguments()["connect_timeout"] == 3


@pytest.mark.parametrize("uri", ["lakebase://", "postgresql:///databricks_postgres", "lakebase://me@/db"])
def test_string_without_a_host_does_not_mean_the_environments_database(
    lakets: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", "projects/weather")

    done = lakets("doctor", "--uri", uri)

    assert done.exit_code == 1
    assert done.stderr.startswith("--uri names no host. ")


@pytest.mark.parametrize("command", ["doctor", "status", "metrics", "install"])
def test_empty_connection_id_is_one_line(lakets: Callable[..., Result], command: str) -> None:
    done = lakets(command, "--conn-id", "")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "lakebase_conn_id is ''. Give the id of an Airflow connection.\n"


def explained(words: str) -> LakeTSError:
    """Return our error for a failure of libpq."""
    return login_error(psycopg.OperationalError(words), "The login", password=SECRET, is_native=True)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (
            "failed to resolve host 'ep-x': [Errno -2] Name or service not known",
            "Check that the host is spelt",
        ),
        ("connection failed: connection to server failed: Connection refused", "Check that host and port"),
        ("connection timeout expired", "Check that host and port"),
        ("connection failed: FATAL:  the database system is starting up", "Try again later."),
    ],
)
def test_silence_comes_with_advice(words: str, advice: str) -> None:
    assert advice in str(explained(words))


def test_failure_at_several_addresses_is_told_once() -> None:
    one = "connection failed: connection to server at 10.0.0.7 failed: Connection refused"
    each = f"Multiple connection attempts failed. All failures were:\n- host: 'a': {one}\n- host: 'b': {one}"

    assert str(explained(f"{one}\n{each}")).count("refused") == 1


def test_missing_authority_is_not_answered_by_turning_the_check_off() -> None:
    words = (
        'connection failed: root certificate file "/none.pem" does not exist\nEither provide the file, '
        "use the system's trusted roots with sslrootcert=system, or change sslmode to disable server "
        "certificate verification."
    )

    found = explained(words)

    assert isinstance(found, LakebaseCredentialError)
    assert re.search(r'"/none.pem" does not exist\. Correct sslrootcert', str(found))
    assert "disable" not in str(found)


def test_profile_of_the_environment_is_not_passed_over(
    bare_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK decides, because it reads the profile."""
    for name in ("CLIENT_ID", "CLIENT_SECRET", "CONFIG_PROFILE"):
        monkeypatch.setenv(f"DATABRICKS_{name}", "elsewhere")
    monkeypatch.setenv("DATABRICKS_HOST", "https://my.cloud.databricks.com")

    with pytest.raises(LakebaseCredentialError, match=r"has no Databricks identity: .*profile") as caught:
        find_identity(None, "Connection 'lakebase_default'")

    assert "Config:" not in str(caught.value)
