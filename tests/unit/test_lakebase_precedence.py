"""The table of docs/connections.md: which setting takes precedence, and which contradict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.exceptions import LakebaseResolutionError, LakebaseSettingError
from airflow_provider_lakets.hooks.lakebase import LakebaseHook

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.control_plane import ControlPlane

WEATHER = "projects/weather/branches/production"
PRIMARY = f"{WEATHER}/endpoints/primary"
DEV = "projects/weather/branches/dev/endpoints/main"
TRAFFIC = "projects/traffic/branches/main/endpoints/only"

HOSTS = {PRIMARY: "primary.example.com", DEV: "dev.example.com", TRAFFIC: "traffic.example.com"}


@pytest.fixture
def world(principal: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> ControlPlane:
    """Two projects, one with two branches; each endpoint has a different host."""
    principal.put_weather(HOSTS[PRIMARY])
    principal.put_endpoint(DEV, HOSTS[DEV])
    principal.put("projects/traffic", default_branch="projects/traffic/branches/main")
    principal.put("projects/traffic/branches/main", default=True)
    principal.put_endpoint(TRAFFIC, HOSTS[TRAFFIC])
    return principal


def where_to() -> tuple[str, str]:
    login = LakebaseHook().login
    return login.endpoint.name, login.arguments()["host"]


@pytest.mark.parametrize(
    ("extra", "fields", "variable", "endpoint"),
    [
        ({"project": "weather"}, {}, TRAFFIC, PRIMARY),
        ({"branch": "projects/weather/branches/dev"}, {}, TRAFFIC, DEV),
        ({"endpoint": DEV}, {}, PRIMARY, DEV),
        ({}, {}, DEV, DEV),
        ({}, {}, "projects/traffic", TRAFFIC),
        ({}, {}, f" {DEV}\n", DEV),
        ({"branch": "dev"}, {}, "projects/weather", DEV),
        ({"branch": "dev"}, {}, DEV, DEV),
        ({"endpoint": "main"}, {}, "projects/weather/branches/dev", DEV),
        ({}, {"host": HOSTS[TRAFFIC]}, PRIMARY, TRAFFIC),
        ({}, {"host": HOSTS[DEV]}, "projects/weather", DEV),
        ({}, {"host": HOSTS[PRIMARY].upper()}, PRIMARY, PRIMARY),
        ({"project": "weather"}, {"host": HOSTS[DEV]}, None, DEV),
        ({"project": "weather", "branch": "dev"}, {"host": HOSTS[DEV]}, None, DEV),
        ({}, {"host": HOSTS[TRAFFIC]}, "projects/gone/branches/b/endpoints/e", TRAFFIC),
    ],
)
def test_what_the_connection_names_wins_and_the_environment_completes_it(
    world: ControlPlane,
    define: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    extra: dict[str, str],
    fields: dict[str, str],
    variable: str | None,
    endpoint: str,
) -> None:
    if variable:
        monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", variable)
    define(extra=extra, **fields)

    name, host = where_to()

    assert name == endpoint
    assert host.lower() == HOSTS[endpoint]


@pytest.mark.parametrize(
    ("extra", "fields", "variable"),
    [
        ({"branch": "dev"}, {}, PRIMARY),
        ({"branch": "dev"}, {}, WEATHER),
        ({"endpoint": "main"}, {}, PRIMARY),
        ({"project": "weather", "endpoint": TRAFFIC}, {}, None),
        ({"project": "weather", "instance": "legacy"}, {}, None),
        ({"branch": "dev", "endpoint": PRIMARY}, {}, None),
        ({"instance": "legacy", "branch": "dev"}, {}, None),
    ],
)
def test_contradiction_is_refused_before_anybody_is_asked(
    world: ControlPlane,
    define: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    extra: dict[str, str],
    fields: dict[str, str],
    variable: str | None,
) -> None:
    if variable:
        monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", variable)
    define(extra=extra, **fields)

    with pytest.raises(LakebaseSettingError, match="contradicts"):
        LakebaseHook().get_conn()

    assert world.requests == []


@pytest.mark.parametrize(
    ("extra", "host", "variable"),
    [
        ({"project": "weather"}, HOSTS[TRAFFIC], None),
        ({"project": "weather", "branch": "production"}, HOSTS[DEV], None),
        ({"project": "weather", "endpoint": "primary"}, HOSTS[DEV], None),
        ({}, "unknown.example.com", PRIMARY),
    ],
)
def test_no_credential_is_minted_for_another_endpoint_than_the_hosts(
    world: ControlPlane,
    define: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    extra: dict[str, str],
    host: str,
    variable: str | None,
) -> None:
    if variable:
        monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", variable)
    define(host=host, extra=extra)

    with pytest.raises(LakebaseResolutionError, match=host):
        LakebaseHook().get_conn()

    assert world.minted == []


@pytest.mark.parametrize(
    ("fields", "environment", "expected"),
    [
        ({"port": 6000}, {"PGPORT": "7000"}, {"port": 6000}),
        ({}, {"PGPORT": "7000"}, {"port": 7000}),
        ({"host": HOSTS[PRIMARY]}, {"PGPORT": "7000"}, {"port": 5432}),
        ({}, {}, {"port": 5432}),
        ({"login": "me"}, {"LAKETS_PG_ROLE": "you", "PGUSER": "they"}, {"user": "me"}),
        ({}, {"LAKETS_PG_ROLE": "you", "PGUSER": "they"}, {"user": "you"}),
        ({}, {"PGHOST": "elsewhere.example.com"}, {"host": HOSTS[PRIMARY]}),
        ({}, {"PGPASSWORD": "x", "PGDATABASE": "y"}, {"dbname": "postgres"}),
        ({"schema": None}, {"PGDATABASE": "y"}, {"dbname": "databricks_postgres"}),
    ],
)
def test_each_argument_has_one_source_that_wins(
    world: ControlPlane,
    define: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    environment: dict[str, str],
    expected: dict[str, Any],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    define(extra={"project": "weather"}, **fields)

    login = LakebaseHook()._fresh_login()

    assert {name: login[name] for name in expected} == expected
    assert login["password"] == world.minted[-1]


def test_port_of_the_environment_that_is_none_is_refused(
    world: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "postgres")
    define(extra={"project": "weather"})

    with pytest.raises(LakebaseSettingError, match="PGPORT in the environment is 'postgres'"):
        LakebaseHook().get_conn()
