"""The link from a task to the Lakebase project: right where it is known, and never in the way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk import BaseOperator

from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from airflow_provider_lakets.links import LakebaseProjectLink
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
    # There is no XCom to ask for outside of Airflow: that must not be raised either.
    key = SimpleNamespace(task_id="x", dag_id="d", run_id="r", map_index=-1)

    assert LakebaseProjectLink().get_link(task, ti_key=key) == ""


def test_every_task_of_ours_has_the_link() -> None:
    for kind in (LakeTSTierOperator, LakeTSDurabilitySensor):
        assert [link.name for link in kind.operator_extra_links] == ["Lakebase project"]


def test_link_is_known_to_airflow() -> None:
    manager = ProvidersManager()  # type: ignore[no-untyped-call]

    assert f"{LakebaseProjectLink.__module__}.LakebaseProjectLink" in manager.extra_links_class_names
