"""The REST API answers any invalid request with one of its own errors."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_lakets.local.api.control_plane import ControlPlane
from airflow_provider_lakets.local.api.databases import Databases
from airflow_provider_lakets.local.api.faults import Faults
from airflow_provider_lakets.local.api.workspace import READ_WRITE, Instance, Principal, Workspace
from airflow_provider_lakets.local.door.credentials import Issuer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.api.workspace import Branch, CdfConfig, Database

URL = "http://127.0.0.1:1"
BRANCH = "projects/local/branches/production"
DATABASE = f"/api/2.0/postgres/{BRANCH}/databases/databricks-postgres"
CREDENTIALS = "/api/2.0/postgres/credentials"
DATABASES = f"/api/2.0/postgres/{BRANCH}/databases"
POSTS = [CREDENTIALS, "/api/2.0/database/credentials", f"{DATABASE}/cdf-configs", DATABASES]
LISTS = ["/api/2.0/postgres/projects", "/api/2.0/database/instances", f"{DATABASE}/cdf-configs", DATABASES]


class NoFeeds:
    """Change feeds that do nothing."""

    async def start(self, database: Database, config: CdfConfig) -> None: ...

    async def stop(self, database: Database, config: CdfConfig) -> None: ...

    async def statuses(self, database: Database, config: CdfConfig) -> list[dict[str, Any]]:
        return []


class NoDatabases(Databases):
    """Databases that exist in the workspace only."""

    def __init__(self) -> None: ...

    async def update(self, branch: Branch) -> None: ...

    async def create(self, branch: Branch, name: str, owner: str) -> Database:
        return branch.add_database(name)

    async def drop(self, branch: Branch, database: Database) -> None: ...


class Api:
    """A workspace, and somebody who is signed in."""

    def __init__(self) -> None:
        self.principal = Principal("me")
        workspace = Workspace({self.principal.client_id: self.principal})
        branch = workspace.add_project("local", 16).add_branch("production", is_default=True)
        self.endpoint = branch.add_endpoint("primary", READ_WRITE, "127.0.0.1")
        branch.add_database("databricks_postgres")
        workspace.instances["i"] = Instance("i", self.endpoint, 16)
        issuer = Issuer(URL)
        app = ControlPlane(workspace, URL, issuer, Faults(), NoFeeds(), NoDatabases()).app()
        self.client = TestClient(app, raise_server_exceptions=False)
        token, _ = issuer.issue(self.principal.client_id, URL, 3600)
        self.headers = {"authorization": f"Bearer {token}"}

    def sign_in(self, client_id: str, secret: str) -> Any:
        basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        return self.client.post(
            "/oidc/v1/token",
            headers={"authorization": f"Basic {basic}"},
            data={"grant_type": "client_credentials"},
        )


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    api = Api()
    with api.client:
        yield api


def check(response: Any, code: str) -> None:
    assert (response.status_code, response.json()["error_code"]) == (400, code)


def test_a_secret_of_other_letters_is_wrong_not_fatal(api: Api) -> None:
    assert api.sign_in(api.principal.client_id, "geheimnis-ß-秘密").status_code == 401


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_object_is_malformed(api: Api, path: str, body: bytes) -> None:
    check(api.client.post(path, headers=api.headers, content=body), "MALFORMED_REQUEST")


@pytest.mark.parametrize(
    "ttl", ["nan", "nans", "inf", "-1s", "1e400s", "", "299s", "3601s", "soon", 600, [], {}]
)
def test_a_time_to_live_that_is_none_is_refused(api: Api, ttl: Any) -> None:
    asked = {"endpoint": api.endpoint.name, "ttl": ttl}
    response = api.client.post(CREDENTIALS, headers=api.headers, json=asked)

    if ttl in ("", [], {}):
        assert response.status_code == 200  # as if it were not there
    else:
        check(response, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("until", ["2026-01-01T00:00:00", "9999-12-31T23:59:59Z", "yesterday", 1])
def test_an_expiry_that_is_none_is_refused(api: Api, until: Any) -> None:
    asked = {"endpoint": api.endpoint.name, "expire_time": until}

    check(api.client.post(CREDENTIALS, headers=api.headers, json=asked), "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("name", ["page_size", "page_token"])
@pytest.mark.parametrize("value", ["-1", "1e3", "%C2%B2", "9" * 5000])
def test_a_page_that_is_none_is_refused(api: Api, path: str, name: str, value: str) -> None:
    check(api.client.get(f"{path}?{name}={value}", headers=api.headers), "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("size", [0, 1001])
def test_a_page_of_no_or_too_many_things_is_refused(api: Api, size: int) -> None:
    check(api.client.get(f"{LISTS[0]}?page_size={size}", headers=api.headers), "INVALID_PARAMETER_VALUE")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    ["endpoint", "ttl", "expire_time", "instance_names", "catalog", "schema", "postgres_schema", "spec"]
)


@given(
    path=st.sampled_from(POSTS),
    body=st.dictionaries(NAMES, JSON) | JSON,
    query=st.dictionaries(
        st.sampled_from(["page_size", "page_token", "cdf_config_id", "database_id"]), st.text(max_size=8)
    ),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_is_a_fault_of_the_server(api: Api, path: str, body: Any, query: dict[str, str]) -> None:
    content = json.dumps(body).encode()

    posted = api.client.post(path, headers=api.headers, content=content, params=query)
    listed = api.client.get(LISTS[2], headers=api.headers, params=query)

    assert posted.status_code < 500
    assert listed.status_code < 500
