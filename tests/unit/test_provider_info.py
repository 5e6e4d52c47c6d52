"""How Airflow uses the provider's metadata."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import airflow
import jsonschema  # type: ignore[import-untyped]
import pytest
from airflow.models.connection import Connection
from airflow.providers_manager import ProvidersManager
from packaging.version import Version

from airflow_provider_lakets.get_provider_info import get_provider_info
from airflow_provider_lakets.hooks.lakebase import LakebaseHook

if TYPE_CHECKING:
    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.control_plane import ControlPlane

# Airflow's own Connection model still looks hooks up the way that Airflow calls deprecated.
looks_up_hooks = pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")

reads_forms = pytest.mark.skipif(
    Version(airflow.__version__) < Version("3.2"),
    reason="Airflow 3.1 takes form fields from FAB's widgets only",
)

MODULES = [
    module
    for kind in ("operators", "sensors", "hooks", "triggers")
    for entry in get_provider_info().get(kind, ())
    for module in entry["python-modules"]
]


@pytest.fixture(scope="module")
def providers() -> ProvidersManager:
    return ProvidersManager()  # type: ignore[no-untyped-call]


def test_metadata_is_of_airflow_s_form() -> None:
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())

    jsonschema.validate(get_provider_info(), schema)


def test_metadata_imports_nothing_but_the_standard_library() -> None:
    code = (
        "import json, sys; before = set(sys.modules);"
        "from airflow_provider_lakets.get_provider_info import get_provider_info; get_provider_info();"
        "print(json.dumps([name.split('.')[0] for name in set(sys.modules) - before]))"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set(json.loads(found.stdout)) - sys.stdlib_module_names == {"airflow_provider_lakets"}


@pytest.mark.parametrize("module", MODULES)
def test_listed_module_imports(module: str) -> None:
    assert import_module(module).__doc__


@looks_up_hooks
def test_connection_type_leads_to_the_hook(providers: ProvidersManager) -> None:
    found = providers.hooks["lakebase"]

    assert found
    assert found.hook_class_name == f"{LakebaseHook.__module__}.{LakebaseHook.__name__}"
    assert found.connection_id_attribute_name == LakebaseHook.conn_name_attr
    assert found.hook_name == LakebaseHook.hook_name
    assert found.connection_testable


@reads_forms
def test_form_shows_each_field_of_ours_with_a_help_text(providers: ProvidersManager) -> None:
    fields = {
        info.field_name: info
        for name, info in providers.connection_form_widgets.items()
        if name.startswith("extra__lakebase__")
    }

    assert set(fields) == {
        "connection_string",
        "project",
        "branch",
        "endpoint",
        "instance",
        "databricks_conn_id",
        "sslmode",
        "sslrootcert",
    }
    field: Any
    for field in (info.field for info in fields.values()):
        assert field["schema"]["title"]
        assert field["description"]


@reads_forms
def test_form_names_the_standard_fields_as_postgres_does(providers: ProvidersManager) -> None:
    behaviour = providers.field_behaviours["lakebase"]

    assert behaviour["relabeling"] == {
        "schema": "Database",
        "login": "Postgres role",
        "password": "Native Postgres password",
    }
    assert behaviour["placeholders"]["host"]
    assert behaviour["hidden_fields"] == []


@looks_up_hooks
def test_test_button_logs_in(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(
        conn_id="lakebase_button",
        conn_type="lakebase",
        host=postgres.socket_dir,
        login="postgres",
        password="unused",
        schema="postgres",
        extra="{}",
    )
    # The button passes the values of the form in the same way.
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_BUTTON", connection.as_json())

    assert isinstance(connection.get_hook(), LakebaseHook)  # type: ignore[no-untyped-call]
    done, message = connection.test_connection()  # type: ignore[no-untyped-call]

    assert done, message
    assert message.startswith("Logged in to database postgres as postgres")


@looks_up_hooks
def test_test_button_says_what_is_wrong_and_no_secret(
    principal: ControlPlane, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection(
        conn_id="lakebase_button",
        conn_type="lakebase",
        host=postgres.socket_dir,
        login=principal.client_id,
        password="very-5ecret",
        schema="postgres",
        extra="{}",
    )
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_BUTTON", connection.as_json())

    done, message = connection.test_connection()  # type: ignore[no-untyped-call]

    assert not done
    assert "password authentication failed" in message
    assert "Correct login and password" in message
    assert "very-5ecret" not in message


@reads_forms
@looks_up_hooks
def test_form_as_the_ui_gets_it_has_a_title_and_a_help_text_for_each_field() -> None:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (form,) = [one for one in HookMetaService.hook_meta_data() if one.connection_type == "lakebase"]

    standard: Any = form.standard_fields
    assert standard.password.title == "Native Postgres password"  # Airflow's own field, which hides the input
    fields: Any = form.extra_fields
    assert all(field["schema"]["title"] and field["description"] for field in fields.values())
    assert len(fields) == 8


@reads_forms
def test_no_field_of_ours_is_for_a_secret_but_what_may_be_pasted_with_one_is_hidden() -> None:
    from airflow.sdk.log import redact  # type: ignore[attr-defined,unused-ignore]

    (form,) = get_provider_info()["connection-types"]

    # Airflow hides what is stored under a name like password or token: none of these is one.
    values = dict.fromkeys(form["conn-fields"], "shown")
    del values["connection_string"]
    assert redact(values) == values
    assert form["conn-fields"]["connection_string"]["schema"]["format"] == "password"


@pytest.mark.filterwarnings("ignore:ProvidersManager.asset_")
def test_airflow_knows_what_to_do_with_an_asset_of_ours(providers: ProvidersManager) -> None:
    from airflow_provider_lakets import assets

    found: list[Any] = [
        providers.asset_uri_handlers["lakets"],
        providers.asset_factories["lakets"],
        providers.asset_to_openlineage_converters["lakets"],
    ]

    assert found == [assets.sanitize_uri, assets.create_asset, assets.convert_asset_to_openlineage]
