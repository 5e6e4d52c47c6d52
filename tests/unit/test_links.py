"""The link from a task to the Lakebase project: right if it is known, and never an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk import BaseOperator

from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from airflow_provider_lakets.links import LakebaseProjectLink, LakeTSPageLink
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierOperator
from airflow_provider_lakets.sensors.durability import LakeTSDurabilitySensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.control_plane import ControlPlane

HOST = "https://my.cloud.databricks.com"
PROJECT = f"{HOST}/lakebase/projects/weather"


@pytest.mark.parametrize(
    ("named", "page"),
    [
        ({"project": "weather"}, PROJECT),
        ({"project": "projects/weather"}, PROJECT),
        ({"project": "weather", "branch": "dev", "endpoint": "primary"}, PROJECT),
        ({"endpoint": "projects/weather/branches/dev/endpoints/primary"}, PROJECT),
        ({"instance": "old one"}, f"{HOST}/compute/database-instances/old%20one"),
        ({}, None),
    ],
    ids=["project", "resource name", "parts", "endpoint", "instance", "nothing"],
)
def test_names_in_the_connection_are_enough(
    define: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    named: dict[str, str],
    page: str | None,
) -> None:
    define(login="native", password="role", extra=named)
    monkeypatch.setenv("DATABRICKS_HOST", HOST)

    assert LakebaseHook().project_page() == page


def test_endpoint_in_the_environment_is_enough(
    define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    define()
    monkeypatch.setenv("DATABRICKS_HOST", "my.cloud.databricks.com")
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", "projects/weather/branches/production/endpoints/primary")

    assert LakebaseHook().project_page() == PROJECT


def test_workspace_is_that_of_the_databricks_connection(
    define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    define(conn_id="dbx", conn_type="databricks", host=HOST, password="secret")
    define(extra={"project": "weather", "databricks_conn_id": "dbx"})
    monkeypatch.setenv("DATABRICKS_HOST", "https://another.cloud.databricks.com")

    assert LakebaseHook().project_page() == PROJECT


def test_what_a_login_has_found_is_known(
    principal: ControlPlane, define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    define(host=postgres.socket_dir)  # as in a string from the console: no project is named
    hook = LakebaseHook()
    before = hook.project_page()

    hook.get_conn().close()

    assert (before, hook.project_page()) == (None, f"{principal.host}/lakebase/projects/weather")


def test_nothing_before_an_at_sign_gets_into_a_link(
    define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    define(extra={"project": "weather"})
    monkeypatch.setenv("DATABRICKS_HOST", "https://me:5ecret@my.cloud.databricks.com:8443")

    assert LakebaseHook().project_page() == "https://my.cloud.databricks.com:8443/lakebase/projects/weather"


@pytest.mark.parametrize(
    "task",
    [
        LakeTSTierOperator(task_id="x", chunks=[]),
        LakeTSDurabilitySensor(task_id="x", table="y"),
        BaseOperator(task_id="x"),
    ],
    ids=["operator", "sensor", "other"],
)
def test_a_task_that_never_logged_in_has_an_empty_link(task: Any) -> None:
    # Outside of Airflow there is no XCom, which must not raise an error either.
    key = SimpleNamespace(task_id="x", dag_id="d", run_id="r", map_index=-1)

    assert LakebaseProjectLink().get_link(task, ti_key=key) == ""


def test_every_task_of_ours_has_the_link() -> None:
    for kind in (LakeTSTierOperator, LakeTSDurabilitySensor):
        assert [link.name for link in kind.operator_extra_links] == ["LakeTS page", "Lakebase project"]


def test_links_are_known_to_airflow() -> None:
    manager = ProvidersManager()  # type: ignore[no-untyped-call]

    for link in (LakebaseProjectLink, LakeTSPageLink):
        assert f"{link.__module__}.{link.__name__}" in manager.extra_links_class_names


@pytest.mark.parametrize(
    ("task", "page"),
    [
        (LakeTSTierOperator(task_id="x", chunks=["a"]), "?conn=lakebase_default"),
        (
            LakeTSRetentionOperator(task_id="x", table="a&b", lakebase_conn_id="prod"),
            "table?conn=prod&name=public.a%26b",
        ),
        (
            LakeTSRetentionOperator(task_id="x", table="m", schema="s"),
            "table?conn=lakebase_default&name=s.m",
        ),
        (LakeTSRetentionOperator(task_id="x", table=["s.a", "s.b"]), "?conn=lakebase_default"),
        (LakeTSDurabilitySensor(task_id="x", table="s.m"), "table?conn=lakebase_default&name=s.m"),
        (LakeTSRollupRefreshOperator(task_id="x", rollup="daily"), "rollup?conn=lakebase_default&name=daily"),
        (LakeTSRollupRefreshOperator(task_id="x"), "?conn=lakebase_default"),
    ],
    ids=["chunks", "table", "with schema", "tables", "sensor", "rollup", "all"],
)
@pytest.mark.parametrize(
    ("base", "below"),
    [("http://airflow.example:8080", ""), ("https://example.com/data/airflow/", "/data/airflow")],
)
def test_a_task_leads_to_the_page_of_what_it_is_about(
    monkeypatch: pytest.MonkeyPatch, base: str, below: str, task: Any, page: str
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)

    assert LakeTSPageLink().get_link(task, ti_key=None) == f"{below}/lakets/{page}"


def test_a_task_of_others_leads_to_no_page() -> None:
    assert LakeTSPageLink().get_link(BaseOperator(task_id="x"), ti_key=None) == ""
