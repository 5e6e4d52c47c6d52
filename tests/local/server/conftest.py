"""The whole local Lakebase, used as its users use it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from airflow_provider_lakets.local.feed import control
from tests.lakes import new_lake
from tests.superuser import superuser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from databricks.sdk import WorkspaceClient

    from airflow_provider_lakets.local.client import LocalServer


@pytest.fixture(scope="session")
def running_server(postgres_version: int) -> Iterator[LocalServer]:
    """Start one local Lakebase for the whole session: it takes seconds."""
    with new_lake(postgres_version, feed_interval=0.3) as server:
        yield server


@pytest.fixture
def server(running_server: LocalServer) -> Iterator[LocalServer]:
    """Yield the local Lakebase; faults that the test caused are cleared afterwards."""
    yield running_server
    running_server.clear_faults()


@pytest.fixture
def workspace(server: LocalServer) -> WorkspaceClient:
    """Return the unmodified SDK, as the owner."""
    from databricks.sdk import WorkspaceClient

    state = server.state
    return WorkspaceClient(
        host=state.url, client_id=state.owner.client_id, client_secret=state.owner.client_secret
    )


@pytest.fixture(scope="session")
def http(running_server: LocalServer) -> Iterator[httpx.Client]:
    """Yield a client of the REST API; to make one costs more than a request."""
    with httpx.Client(base_url=running_server.state.url) as client:
        yield client


@pytest.fixture
def mint(server: LocalServer, http: httpx.Client) -> Callable[..., str]:
    """Return a function that mints a credential of the owner over plain HTTP."""
    state = server.state

    def mint(endpoint: str = state.endpoint) -> str:
        known = (state.owner.client_id, state.owner.client_secret)
        grant = {"grant_type": "client_credentials", "scope": "all-apis"}
        token = http.post("/oidc/v1/token", auth=known, data=grant).json()["access_token"]
        answer = http.post(
            "/api/2.0/postgres/credentials",
            json={"endpoint": endpoint},
            headers={"Authorization": f"Bearer {token}"},
        )
        return str(answer.raise_for_status().json()["token"])

    return mint


@pytest.fixture
def login(server: LocalServer, mint: Callable[..., str]) -> Iterator[Callable[..., psycopg.Connection[Any]]]:
    """Return a function that logs in, by default as the owner."""
    state = server.state
    opened: list[psycopg.Connection[Any]] = []

    def login(**arguments: Any) -> psycopg.Connection[Any]:
        usual = {
            "host": "127.0.0.1",
            "port": state.port,
            "dbname": "databricks_postgres",
            "user": state.owner.client_id,
            "sslmode": "require",
        }
        if "password" not in arguments:
            arguments["password"] = mint()
        opened.append(psycopg.connect(**{**usual, **arguments}, autocommit=True))
        return opened[-1]

    yield login
    for session in opened:
        session.close()


@pytest.fixture
def admin(server: LocalServer) -> Iterator[psycopg.Connection[Any]]:
    """Yield a session of the superuser, without the gateway."""
    with psycopg.connect(superuser(server), autocommit=True) as conn:
        yield conn


@pytest.fixture
def feeding(server: LocalServer, admin: psycopg.Connection[Any]) -> Iterator[LocalServer]:
    """Yield the Lakebase with one table that streams."""
    admin.execute("CREATE SCHEMA IF NOT EXISTS lakets_cdf")
    admin.execute("CREATE TABLE lakets_cdf._shadow_probe (id int)")
    admin.execute("ALTER TABLE lakets_cdf._shadow_probe REPLICA IDENTITY FULL")
    admin.execute("INSERT INTO lakets_cdf._shadow_probe VALUES (1)")
    control.wait_flushed(superuser(server), 30)
    yield server
    admin.execute("DROP TABLE lakets_cdf._shadow_probe")


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Return once a condition is true."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, f"not so: {what}"
        time.sleep(0.01)
