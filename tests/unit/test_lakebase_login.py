"""Logins to Lakebase: the identity, the role and the credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest
from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import supervisor, task_runner
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider_lakets.exceptions import (
    LakebaseConnectionError,
    LakebaseCredentialError,
    LakebaseSettingError,
)
from airflow_provider_lakets.hooks.lakebase import LakebaseHook

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.control_plane import ControlPlane

PRIMARY = "projects/weather/branches/production/endpoints/primary"


def ask(hook: LakebaseHook, query: str = "SELECT current_user, current_database()") -> Any:
    with hook.get_conn() as conn:
        return conn.execute(query).fetchone()


def test_service_principal_of_the_environment_logs_in_with_a_minted_credential(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    define(extra={"project": "weather"})

    assert ask(LakebaseHook()) == (principal.client_id, "postgres")
    assert principal.minted_for == [PRIMARY]


def test_each_login_mints_anew_and_looks_up_nothing_twice(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    define(extra={"project": "weather"})
    hook = LakebaseHook()
    ask(hook)
    before = len(principal.requests)

    ask(hook)

    assert principal.requests[before:] == ["POST /api/2.0/postgres/credentials"]
    assert len(set(principal.minted)) == 2


def test_environment_alone_is_enough(
    principal: ControlPlane, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.ensure_database("databricks_postgres")
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", PRIMARY)

    assert ask(LakebaseHook()) == (principal.client_id, "databricks_postgres")


def test_project_is_enough_of_an_endpoint_in_the_environment(
    principal: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    define()
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", "projects/weather")

    ask(LakebaseHook())

    assert principal.minted_for == [PRIMARY]


def test_environment_does_not_stand_in_for_a_misspelt_connection(
    principal: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", PRIMARY)

    with pytest.raises(AirflowNotFoundException, match="'lakebase_prod' is not defined"):
        LakebaseHook("lakebase_prod").get_conn()


def test_nothing_defined_tells_both_ways(bare_environment: None) -> None:
    with pytest.raises(
        AirflowNotFoundException, match=r"Define it; or.*DATABRICKS_HOST.*LAKETS_LAKEBASE_ENDPOINT"
    ):
        LakebaseHook().get_conn()


class _Silent:
    """A secrets backend, or the supervisor of a task, that cannot answer now."""

    def get_connection(self, conn_id: str) -> None:
        raise ConnectionError(f"a secret of {conn_id}")

    def send(self, message: Any) -> ErrorResponse:
        return ErrorResponse(error=ErrorType.API_SERVER_ERROR)


@pytest.mark.parametrize("silent", ["secrets backend", "API server"])
@pytest.mark.parametrize("conn_id", ["lakebase_default", "lakebase_prod"])
def test_environment_does_not_stand_in_for_a_connection_that_cannot_be_looked_up(
    principal: ControlPlane, monkeypatch: pytest.MonkeyPatch, silent: str, conn_id: str
) -> None:
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", PRIMARY)
    if silent == "API server":
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", _Silent(), raising=False)
    else:
        monkeypatch.setattr(supervisor, "ensure_secrets_backend_loaded", lambda: [_Silent()])

    with pytest.raises(LakebaseConnectionError, match=f"'{conn_id}' could not be looked up"):
        LakebaseHook(conn_id).get_conn()

    assert not principal.minted


def test_environment_does_not_stand_in_for_a_connection_with_a_mistake(
    principal: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", PRIMARY)
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", '{"conn_type": "lakebase", "secret"}')

    with pytest.raises(LakebaseSettingError, match="'lakebase_default' cannot be read"):
        LakebaseHook().get_conn()


def test_service_principal_of_a_databricks_connection_logs_in(
    workspace: ControlPlane, define: Callable[..., None]
) -> None:
    define(
        conn_id="dbx",
        conn_type="databricks",
        host=workspace.host,
        login=workspace.client_id,
        password=workspace.client_secret,
        extra={"service_principal_oauth": True},
    )
    define(extra={"project": "weather", "databricks_conn_id": "dbx"})

    assert ask(LakebaseHook())[0] == workspace.client_id


def test_databricks_connection_of_the_argument_wins_over_the_extra(
    workspace: ControlPlane, define: Callable[..., None]
) -> None:
    scheme, _, address = workspace.host.partition("://")
    host, port = address.split(":")
    principal = f"{workspace.client_id}:{workspace.client_secret}"
    define(f"databricks://{principal}@{host}:{port}/{scheme}?service_principal_oauth=true", conn_id="dbx")
    define(extra={"project": "weather", "databricks_conn_id": "gone"})

    assert ask(LakebaseHook(databricks_conn_id="dbx"))[0] == workspace.client_id


def test_other_login_kinds_go_through_the_databricks_provider(
    workspace: ControlPlane, define: Callable[..., None], make_role: Callable[[str], None]
) -> None:
    workspace.tokens.add("a-personal-token")
    workspace.user_name = "somebody@example.com"
    make_role("somebody@example.com")
    define(conn_id="dbx", conn_type="databricks", host=workspace.host, password="a-personal-token")
    define(extra={"project": "weather", "databricks_conn_id": "dbx"})

    assert ask(LakebaseHook())[0] == "somebody@example.com"


def test_other_identities_of_the_environment_go_through_the_sdk(
    workspace: ControlPlane,
    define: Callable[..., None],
    make_role: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace.tokens.add("a-personal-token")
    workspace.user_name = "somebody@example.com"
    make_role("somebody@example.com")
    monkeypatch.setenv("DATABRICKS_HOST", workspace.host)
    monkeypatch.setenv("DATABRICKS_TOKEN", "a-personal-token")
    define(extra={"project": "weather"})

    assert ask(LakebaseHook())[0] == "somebody@example.com"


@pytest.mark.parametrize(
    ("login", "variable", "expected"),
    [
        ("from_login", "from_variable", "from_login"),
        (None, "from_variable", "from_variable"),
        (None, None, None),
    ],
    ids=["login", "LAKETS_PG_ROLE", "identity"],
)
def test_role_is_the_login_else_the_variable_else_the_identity(
    principal: ControlPlane,
    define: Callable[..., None],
    make_role: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    login: str | None,
    variable: str | None,
    expected: str | None,
) -> None:
    if expected:
        make_role(expected)
        principal.user_name = expected  # whose password a credential becomes
    if variable:
        monkeypatch.setenv("LAKETS_PG_ROLE", variable)
    define(login=login, extra={"project": "weather"})

    assert ask(LakebaseHook())[0] == (expected or principal.client_id)


@pytest.mark.parametrize("scheme", ["postgresql", "lakebase"])
def test_console_string_finds_its_endpoint_by_the_host(
    principal: ControlPlane, define: Callable[..., None], postgres: EmbeddedPostgres, scheme: str
) -> None:
    host, role = quote(postgres.socket_dir, safe=""), quote(principal.client_id)
    define(f"{scheme}://{role}@{host}/postgres?sslmode=require")

    assert ask(LakebaseHook())[0] == principal.client_id
    assert principal.minted_for == [PRIMARY]


def test_console_string_with_the_endpoint_searches_nothing(
    principal: ControlPlane, define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    host, role = quote(postgres.socket_dir, safe=""), quote(principal.client_id)
    define(f"postgresql://{role}@{host}/postgres?sslmode=require&endpoint={PRIMARY}")

    ask(LakebaseHook())

    assert principal.requests == ["POST /oidc/v1/token", "POST /api/2.0/postgres/credentials"]


def test_native_password_needs_no_workspace(
    postgres: EmbeddedPostgres, make_role: Callable[[str], None], define: Callable[..., None]
) -> None:
    make_role("native")
    with psycopg.connect(postgres.conninfo(), autocommit=True) as admin:
        admin.execute("ALTER ROLE native PASSWORD 'hunter2'")
    define(host=postgres.socket_dir, login="native", password="hunter2")

    assert ask(LakebaseHook()) == ("native", "postgres")


def test_native_password_without_a_role_is_refused_before_the_login(
    bare_environment: None, define: Callable[..., None]
) -> None:
    define(host="localhost", password="hunter2")

    with pytest.raises(LakebaseCredentialError, match="has a password but no login"):
        LakebaseHook().get_conn()


def test_credential_is_not_even_minted_for_a_login_in_clear_text(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    principal.put_weather("ep-x.example.com")
    define(extra={"project": "weather", "sslmode": "prefer"})

    with pytest.raises(LakebaseCredentialError, match="asks for sslmode 'prefer' to 'ep-x"):
        LakebaseHook().get_conn()

    assert principal.minted == []


def test_provisioned_instance_has_its_own_credentials(
    principal: ControlPlane, define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    principal.instances["instances/legacy"] = {"name": "legacy", "read_write_dns": postgres.socket_dir}
    define(extra={"instance": "legacy"})

    assert ask(LakebaseHook())[0] == principal.client_id
    assert principal.requests[-1] == "POST /api/2.0/database/credentials"
    assert principal.minted_for == ["legacy"]


def test_sql_operator_runs_on_a_lakebase_connection(
    principal: ControlPlane, define: Callable[..., None], empty_database: str
) -> None:
    define(extra={"project": "weather"})
    database = str(psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"])
    operator = SQLExecuteQueryOperator(
        task_id="ask",
        conn_id="lakebase_default",
        sql="SELECT current_user, current_database()",
        database=database,
        hook_params={"statement_timeout": "5s"},
    )

    hook = operator.get_db_hook()

    assert isinstance(hook, LakebaseHook)
    assert isinstance(hook, PostgresHook)
    assert operator.execute({}) == [(principal.client_id, database)]  # type: ignore[no-untyped-call]


def test_token_that_was_withdrawn_is_renewed(principal: ControlPlane, define: Callable[..., None]) -> None:
    define(extra={"project": "weather"})
    hook = LakebaseHook()
    ask(hook)

    principal.tokens.clear()

    assert ask(hook)[0] == principal.client_id
