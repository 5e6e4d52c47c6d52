"""Find the endpoint of a connection, and report what is wrong if that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.exceptions import (
    LakebaseConnectionError,
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakeTSError,
)
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from tests.control_plane import READ_ONLY, ControlPlane, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

BRANCH = "projects/weather/branches/production"
PRIMARY = f"{BRANCH}/endpoints/primary"


def refused(kind: type[LakeTSError]) -> str:
    with pytest.raises(kind) as caught:
        LakebaseHook().get_conn()
    return str(caught.value)


@pytest.mark.parametrize(
    ("extra", "endpoint"),
    [
        ({"project": "weather"}, PRIMARY),
        ({"project": "projects/weather"}, PRIMARY),
        ({"endpoint": PRIMARY}, PRIMARY),
        ({"endpoint": "primary", "project": "weather"}, PRIMARY),
        ({"endpoint": "", "project": "weather"}, PRIMARY),
        ({"project": "weather", "branch": "dev"}, "projects/weather/branches/dev/endpoints/main"),
        ({"branch": "projects/weather/branches/dev"}, "projects/weather/branches/dev/endpoints/main"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_names_lead_to_the_endpoint(
    principal: ControlPlane, define: Callable[..., None], extra: dict[str, str], endpoint: str
) -> None:
    host = principal.resources[PRIMARY]["status"]["hosts"]["host"]
    principal.put_endpoint("projects/weather/branches/dev/endpoints/main", host)
    define(extra=extra)

    LakebaseHook().get_conn().close()

    assert principal.minted_for == [endpoint]


def test_extra_wins_over_the_endpoint_of_the_environment(
    principal: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", "projects/other")
    define(extra={"project": "weather"})

    LakebaseHook().get_conn().close()

    assert principal.minted_for == [PRIMARY]


def test_default_branch_is_found_among_the_branches_when_the_project_does_not_name_it(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    principal.put("projects/weather")
    define(extra={"project": "weather"})

    LakebaseHook().get_conn().close()

    assert principal.minted_for == [PRIMARY]


def test_unknown_project_names_those_there_are(principal: ControlPlane, define: Callable[..., None]) -> None:
    principal.put("projects/traffic")
    define(extra={"project": "wether"})

    message = refused(LakebaseResolutionError)

    assert "Connection 'lakebase_default': project 'projects/wether'" in message
    assert "There is: projects/traffic, projects/weather." in message
    assert f"service principal {principal.client_id} (environment)" in message


def test_project_without_a_default_branch_names_its_branches(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    principal.put("projects/weather")
    principal.put(BRANCH, default=False)
    define(extra={"project": "weather"})

    message = refused(LakebaseResolutionError)

    assert (
        f"has no default branch; it has projects/weather/branches/dev, {BRANCH}. Name one as branch"
        in message
    )


def test_unknown_branch_names_those_there_are(principal: ControlPlane, define: Callable[..., None]) -> None:
    define(extra={"project": "weather", "branch": "prod"})

    message = refused(LakebaseResolutionError)

    assert "branch 'projects/weather/branches/prod'" in message
    assert f"There is: projects/weather/branches/dev, {BRANCH}." in message


def test_branch_without_a_read_write_endpoint_names_what_it_has(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    del principal.resources[PRIMARY]
    define(extra={"project": "weather"})

    message = refused(LakebaseResolutionError)

    assert f"has no read-write endpoint; it has {BRANCH}/endpoints/readers ({READ_ONLY})." in message


def test_unknown_endpoint_names_its_siblings(principal: ControlPlane, define: Callable[..., None]) -> None:
    define(extra={"endpoint": f"{BRANCH}/endpoints/secondary"})

    message = refused(LakebaseResolutionError)

    assert f"endpoint '{BRANCH}/endpoints/secondary'" in message
    assert f"{PRIMARY} (ENDPOINT_TYPE_READ_WRITE)" in message


def test_endpoint_that_is_still_starting_is_worth_another_try(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    principal.put(PRIMARY, endpoint_type="ENDPOINT_TYPE_READ_WRITE", current_state="INIT")
    define(extra={"project": "weather"})

    message = refused(LakebaseConnectionError)

    assert f"endpoint '{PRIMARY}' has no host yet; its state is INIT. Try again" in message


def test_disabled_endpoint_is_not(principal: ControlPlane, define: Callable[..., None]) -> None:
    principal.put_endpoint(PRIMARY, "host.invalid", disabled=True)
    define(extra={"project": "weather"})

    assert "is disabled. Enable it first." in refused(LakebaseResolutionError)


def test_instance_that_is_stopped_says_so(principal: ControlPlane, define: Callable[..., None]) -> None:
    principal.instances["instances/legacy"] = {"name": "legacy", "state": "STOPPED"}
    define(extra={"instance": "legacy"})

    assert "instance 'legacy' has no host; its state is STOPPED." in refused(LakebaseConnectionError)


def test_unknown_instance_names_those_there_are(principal: ControlPlane, define: Callable[..., None]) -> None:
    principal.instances["instances/legacy"] = {"name": "legacy"}
    define(extra={"instance": "legaci"})

    assert "There is: legacy." in refused(LakebaseResolutionError)


def test_connection_that_names_nothing_says_what_it_may_name(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    define()

    message = refused(LakebaseResolutionError)

    assert "'lakebase_default' names no Lakebase project." in message
    assert "LAKETS_LAKEBASE_ENDPOINT" in message


def test_endpoint_that_is_no_resource_name_is_told_the_form(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    define(extra={"endpoint": "weather/production/primary"})

    message = refused(LakebaseResolutionError)

    assert "endpoint 'weather/production/primary' is not a resource name" in message
    assert "projects/<project>/branches/<branch>/endpoints/<endpoint>" in message
    assert principal.requests == []


def test_host_of_no_endpoint_says_why_one_is_needed(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    define(host="ep-elsewhere.invalid", login="somebody")

    message = refused(LakebaseResolutionError)

    assert "sees no endpoint with host 'ep-elsewhere.invalid'" in message


def test_search_by_host_passes_over_what_is_closed_to_the_identity(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    host = principal.resources[PRIMARY]["status"]["hosts"]["host"]
    principal.put("projects/another")
    principal.faults.append(Fault("projects/another/branches", 403, "PERMISSION_DENIED"))
    principal.faults.append(Fault("database/instances", 404, "FEATURE_DISABLED"))
    define(host=host)

    LakebaseHook().get_conn().close()

    assert principal.minted_for == [PRIMARY]


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("GET .*/projects/weather$", "project 'projects/weather'"),
        ("GET .*/endpoints$", f"branch '{BRANCH}'"),
        ("POST .*/credentials$", f"a database credential for '{PRIMARY}'"),
    ],
    ids=["project", "endpoints", "credential"],
)
def test_permission_denied_names_what_was_asked_and_by_whom(
    principal: ControlPlane, define: Callable[..., None], pattern: str, what: str
) -> None:
    principal.faults.append(Fault(pattern, 403, "PERMISSION_DENIED"))
    define(extra={"project": "weather"})

    message = refused(LakebaseCredentialError)

    assert f"Connection 'lakebase_default': {what}, asked for by the service principal" in message
    assert "403, PERMISSION_DENIED" in message
    assert "Grant the identity access to the project" in message


def test_identity_that_is_not_there_tells_both_ways(
    bare_environment: None, define: Callable[..., None]
) -> None:
    define(extra={"project": "weather"})

    message = refused(LakebaseCredentialError)

    assert "Connection 'lakebase_default' has no Databricks identity: " in message
    assert "Set DATABRICKS_HOST, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET" in message
    assert "databricks_conn_id" in message


def test_databricks_connection_that_is_not_there_is_named(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    define(extra={"project": "weather", "databricks_conn_id": "dbx"})

    message = refused(LakebaseCredentialError)

    assert "Connection 'lakebase_default' names the Databricks connection 'dbx'" in message
    assert "which is not defined" in message


def test_wrong_client_secret_is_told_as_such(
    principal: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "expired-secret")
    define(extra={"project": "weather"})

    message = refused(LakebaseCredentialError)

    assert "was refused a token" in message
    assert "401, invalid_client" in message


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("oidc/v1/token", "asked {host} for a token, but the response contains none"),
        (
            "postgres/credentials",
            "the service principal {client_id} (environment) requested a database credential for",
        ),
    ],
    ids=["identity", "credential"],
)
def test_answer_without_a_token_is_told(
    principal: ControlPlane, define: Callable[..., None], pattern: str, what: str
) -> None:
    principal.faults.append(Fault(pattern, 200, body="{}"))
    define(extra={"project": "weather"})

    message = refused(LakebaseCredentialError)

    assert what.format(host=principal.host, client_id=principal.client_id) in message


def test_workspace_over_plain_http_on_a_network_is_refused(
    principal: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", "http://workspace.example.com")
    define(extra={"project": "weather"})

    assert "would travel in clear text" in refused(LakebaseCredentialError)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_overloaded_workspace_is_asked_again(
    principal: ControlPlane, define: Callable[..., None], impatient: None, status: int
) -> None:
    principal.faults.append(Fault("credentials", status, times=3))
    define(extra={"project": "weather"})

    LakebaseHook().get_conn().close()

    assert len(principal.minted) == 1


def test_workspace_is_asked_again_when_it_says(
    principal: ControlPlane, define: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    principal.faults.append(Fault("credentials", 429, times=4, headers={"Retry-After": "0"}))
    define(extra={"project": "weather"})

    LakebaseHook().get_conn().close()

    assert [text for text in caplog.messages if "Trying again" in text] == [
        f"POST {principal.host}/api/2.0/postgres/credentials was answered 429, INTERNAL_ERROR, "
        "failed on purpose, sent Bearer ***. Trying again in 0.0 s."
    ] * 4


def test_workspace_that_stays_overloaded_is_given_up_on(
    principal: ControlPlane, define: Callable[..., None], impatient: None
) -> None:
    principal.faults.append(Fault("credentials", 503))
    define(extra={"project": "weather"})

    message = refused(LakebaseConnectionError)

    assert "was answered 503" in message
    assert sum("credentials" in request for request in principal.requests) == 5


def test_workspace_that_is_gone_is_given_up_on(
    principal: ControlPlane, define: Callable[..., None], impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:1")
    define(extra={"project": "weather"})

    assert "was not answered (ConnectionError)" in refused(LakebaseConnectionError)


@pytest.mark.parametrize("status", [200, 302])
def test_answer_of_something_else_than_a_workspace_is_told(
    principal: ControlPlane, define: Callable[..., None], status: int
) -> None:
    page = Fault("projects/weather$", status, body="<html>Sign in</html>", headers={"Location": "/login"})
    principal.faults.append(page)
    define(extra={"project": "weather"})

    assert "not the JSON of a Databricks workspace. Correct the" in refused(LakebaseResolutionError)
