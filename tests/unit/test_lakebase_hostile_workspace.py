"""A workspace that is broken, hostile or missing: one clear error, and no endless loop."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakebaseSettingError, LakeTSError
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from tests.control_plane import ControlPlane, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BRANCH = "projects/weather/branches/production"
ENDPOINT = f"{BRANCH}/endpoints/primary"


def refused() -> str:
    with pytest.raises(LakeTSError) as caught:
        LakebaseHook().get_conn()
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize("body", ["null", "[]", "7", '"text"', " ", "{", "[" * 100_000, "\xff"])
@pytest.mark.parametrize("where", ["oidc/v1/token", "projects/weather$", "endpoints$", "credentials"])
def test_answer_that_is_no_object_is_one_clear_error(
    principal: ControlPlane, define: Callable[..., None], where: str, body: str
) -> None:
    principal.faults.append(Fault(where, 200, body=body))
    define(extra={"project": "weather"})

    assert refused().startswith("Connection 'lakebase_default'")


@pytest.mark.parametrize(
    ("where", "answer"),
    [
        ("projects/weather$", {"status": None}),
        ("projects/weather$", {"status": []}),
        ("projects/weather$", {"status": {"default_branch": 7}}),
        ("projects/weather$", {"status": {"default_branch": "b\x1b[31m"}}),
        ("endpoints$", {"endpoints": None}),
        ("endpoints$", {"endpoints": {}}),
        ("endpoints$", {"endpoints": [None]}),
        ("endpoints$", {"endpoints": [{"status": {"endpoint_type": "ENDPOINT_TYPE_READ_WRITE"}}]}),
        ("endpoints$", {"endpoints": [{"name": ENDPOINT, "status": "ACTIVE"}]}),
        ("endpoints$", {"endpoints": [], "next_page_token": 7}),
        ("credentials", {"token": None}),
        ("credentials", {"token": {"value": "x"}}),
        ("credentials", {"token": "sentinel-token\nX"}),
        ("credentials", {"token": "sentinel-token\u200b-x"}),
        ("credentials", {"token": "sentinel-token" * 10_000}),
        ("oidc/v1/token", {"access_token": "sentinel-token\r\nX-Other: y", "expires_in": 3600}),
        ("oidc/v1/token", {"access_token": ["sentinel-token"], "expires_in": 3600}),
    ],
)
def test_answer_of_another_shape_is_one_clear_error(
    principal: ControlPlane,
    define: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    where: str,
    answer: dict[str, Any],
) -> None:
    if "default_branch" not in json.dumps(answer) and where.startswith("projects"):
        principal.resources = {name: {"name": name} for name in principal.resources}
    principal.faults.append(Fault(where, 200, body=json.dumps(answer)))
    define(extra={"project": "weather"})

    message = refused()

    assert message.startswith("Connection 'lakebase_default'")
    assert "sentinel" not in message + caplog.text


@pytest.mark.parametrize(
    "host", ["https://evil.example.com/", "a b", "host\x1b[2J", "h?x=y", ["h"], {"x": "y"}, 7]
)
def test_host_that_is_none_is_refused_before_a_credential_is_minted(
    principal: ControlPlane, define: Callable[..., None], host: Any
) -> None:
    principal.put_endpoint(ENDPOINT, host)
    define(extra={"project": "weather"})

    refused()

    assert principal.minted == []


@pytest.mark.parametrize(
    "expires_in", [None, "soon", "3600", -1, float("inf"), float("nan"), 1e308, [], True]
)
def test_lifetime_that_makes_no_sense_does_not_keep_a_token_for_ever(
    principal: ControlPlane, define: Callable[..., None], expires_in: Any
) -> None:
    token = {"access_token": "known-token", "expires_in": expires_in}
    principal.tokens.add("known-token")
    principal.faults.append(Fault("oidc/v1/token", 200, body=json.dumps(token)))
    define(extra={"project": "weather"})

    LakebaseHook().get_conn().close()


@pytest.mark.parametrize("pages", ["the same page forever", "ever new pages"])
def test_list_without_an_end_ends(
    principal: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch, pages: str
) -> None:
    number = iter(range(10_000))
    answer = principal.answer

    def endless(method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        if path.endswith("/endpoints"):
            token = str(next(number)) if pages == "ever new pages" else "again"
            return 200, {"endpoints": [], "next_page_token": token}
        return answer(method, path, query, body)

    monkeypatch.setattr("airflow_provider_lakets.login.workspace.MOST_PAGES", 20)
    principal.answer = endless  # type: ignore[method-assign]
    define(extra={"project": "weather"})

    assert "is an endless list" in refused()
    assert len(principal.requests) < 30


def test_message_of_a_workspace_does_not_steer_the_terminal(
    principal: ControlPlane, define: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"error_code": "X\x1b[2J", "message": "first\r\n\x07second\u202e"})
    principal.faults.append(Fault("credentials", 403, body=body))
    define(extra={"project": "weather"})

    message = refused()

    assert "first \\x07second\\u202e" in message
    assert all(text.isprintable() for text in caplog.messages)


@pytest.mark.parametrize("secret", ["secret of the client", "token", "basic proof"])
@pytest.mark.parametrize(
    ("where", "body"),
    [
        ("projects/weather$", '{"status": {"default_branch": "SECRET"}}'),
        ("projects/weather$", '{"status": {"default_branch": "projects/weather/branches/SECRET"}}'),
        ("branches/production/endpoints$", '{"endpoints": [{"name": "SECRET"}]}'),
        ("branches/production/endpoints$", '{"endpoints": [{"name": "x", "status": {"hosts": "SECRET"}}]}'),
        (
            "branches/production/endpoints$",
            '{"endpoints": [{"name": "x", "status": {"endpoint_type": "ENDPOINT_TYPE_READ_WRITE",'
            ' "current_state": "SECRET"}}]}',
        ),
        (
            "branches/production/endpoints$",
            '{"endpoints": [{"name": "x", "status": {"endpoint_type": "ENDPOINT_TYPE_READ_WRITE",'
            ' "hosts": {"host": "SECRET"}}}]}',
        ),
        ("projects/weather$", '{"error_code": "SECRET", "message": "SECRET"}'),
        ("credentials", '{"token": ["SECRET"]}'),
        ("credentials", '{"token": "\\u200bSECRET"}'),
    ],
)
def test_secret_that_a_workspace_repeats_goes_no_further(
    principal: ControlPlane,
    define: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    where: str,
    body: str,
    secret: str,
) -> None:
    caplog.set_level("DEBUG")
    token = "sentinel-of-the-token"
    basic = base64.b64encode(f"{principal.client_id}:{principal.client_secret}".encode()).decode()
    repeated = {"secret of the client": principal.client_secret, "token": token, "basic proof": basic}[secret]
    principal.tokens.add(token)
    principal.faults += [
        Fault("oidc/v1/token", 200, body=json.dumps({"access_token": token, "expires_in": 3600})),
        Fault(where, 403 if "error_code" in body else 200, body=body.replace("SECRET", repeated)),
    ]
    define(extra={"project": "weather"})

    done, answer = LakebaseHook().test_connection()

    assert not done
    assert repeated not in refused() + answer + caplog.text


def test_answer_without_an_end_is_cut_off(
    principal: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_lakets.login.rest.LONGEST_ANSWER", 1_000)
    principal.faults.append(Fault("projects/weather$", 200, body=json.dumps({"x": "y" * 100_000})))
    define(extra={"project": "weather"})

    assert "not the JSON of a Databricks workspace" in refused()


@pytest.mark.parametrize(
    "host",
    [
        "javascript:alert(1)",
        "javascript://alert(1)",
        "https://me:PASS@my.cloud.databricks.com",
        "me:PASS@my.cloud.databricks.com",
        "ftp://my.cloud.databricks.com",
        "https://my cloud.databricks.com",
        "https://my.cloud.databricks.com:PASS",
        "https://[my.cloud",
        "https://",
        "https://my\x1b[31m.databricks.com",
        "http://my.cloud.databricks.com",
    ],
)
@pytest.mark.parametrize("kind", ["environment", "connection", "sdk"])
def test_workspace_that_has_no_address_is_refused_and_not_linked(
    principal: ControlPlane,
    define: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    kind: str,
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", host)
    if kind == "sdk":
        monkeypatch.setenv("DATABRICKS_TOKEN", "a-token")
        monkeypatch.delenv("DATABRICKS_CLIENT_SECRET")
    fields = {"login": "id", "password": "a-secret", "extra": {"service_principal_oauth": True}}
    define(conn_id="dbx", conn_type="databricks", host=host, **fields)
    define(extra={"project": "weather", **({"databricks_conn_id": "dbx"} if kind == "connection" else {})})

    message = refused()
    page = LakebaseHook().project_page() or "https://"

    assert "PASS" not in message + page
    assert page.startswith("https://")
    assert principal.requests == []


@pytest.mark.parametrize(
    "host", [" {host} ", "{host}/", "{host}/?o=42", "{host}/sql/warehouses#x", "\n{host}\n"]
)
def test_workspace_is_found_as_people_write_it(
    principal: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", host.format(host=principal.host))
    define(extra={"project": "weather"})

    LakebaseHook().get_conn().close()


@pytest.mark.parametrize("extra", ["[]", '["a"]', "7", "{"])
def test_databricks_connection_whose_extra_is_no_object_is_refused(
    principal: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    fields = {"conn_type": "databricks", "host": principal.host, "password": "a-token", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_DBX", json.dumps(fields))
    define(extra={"project": "weather", "databricks_conn_id": "dbx"})
    if extra == "[]":
        return  # Airflow reads it as an empty extra

    # Airflow 3.1 cannot read such a connection.
    message = r"The extra of connection 'dbx' is not a JSON object|'dbx' cannot be read \(ValueError\)"
    with pytest.raises(LakebaseSettingError, match=message):
        LakebaseHook().get_conn()


@pytest.mark.parametrize("proxies", ["http://p", ["x"], {"https": 7}])
def test_proxies_that_are_none_are_refused(
    principal: ControlPlane, define: Callable[..., None], proxies: Any
) -> None:
    fields = {"host": principal.host, "login": principal.client_id, "password": principal.client_secret}
    extra = {"service_principal_oauth": True, "proxies": proxies}
    define(conn_id="dbx", conn_type="databricks", extra=extra, **fields)
    define(extra={"project": "weather", "databricks_conn_id": "dbx"})

    assert "proxies of its Databricks connection" in refused()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_file_of_certificates_that_is_not_there_is_named(
    principal: ControlPlane,
    define: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    untrusted: str,
    variable: str,
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(variable, "/no/such/file")
    monkeypatch.setenv("DATABRICKS_HOST", untrusted)
    define(extra={"project": "weather"})

    message = refused()

    assert "Set REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE to files that exist" in message
    assert principal.client_secret not in message


def test_certificate_that_is_not_trusted_is_one_clear_error_at_once(
    principal: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch, untrusted: str
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", untrusted)
    define(extra={"project": "weather"})

    with pytest.raises(LakebaseCredentialError, match="certificate is not trusted here"):
        LakebaseHook().get_conn()


@pytest.fixture
def untrusted(tmp_path: Path) -> Iterator[str]:
    """Serve TLS with a certificate that nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = listener.accept()
                    with caller, contextlib.suppress(ssl.SSLError):
                        context.wrap_socket(caller, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
