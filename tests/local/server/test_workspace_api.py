"""The unmodified databricks-sdk and psycopg on the local Lakebase, as Databricks documents."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import jwt
import psycopg
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import AlreadyExists, BadRequest, InvalidParameterValue, NotFound, Unauthenticated
from databricks.sdk.service.postgres import CdfConfig, Database, DatabaseDatabaseSpec
from google.protobuf.duration_pb2 import Duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from airflow_provider_lakets.local.client import LocalServer

PRODUCTION = "projects/local/branches/production"
ENDPOINT = f"{PRODUCTION}/endpoints/primary"
DATABASE = f"{PRODUCTION}/databases/databricks-postgres"


def test_the_documented_snippet_logs_in(workspace: WorkspaceClient, server: LocalServer) -> None:
    endpoint = workspace.postgres.get_endpoint(name=ENDPOINT)
    credential = workspace.postgres.generate_database_credential(endpoint=ENDPOINT)
    user = workspace.current_user.me().user_name
    assert endpoint.status is not None
    assert endpoint.status.hosts is not None

    with psycopg.connect(
        host=endpoint.status.hosts.host,
        port=server.state.port,
        dbname="databricks_postgres",
        user=user,
        password=credential.token,
        sslmode="require",
    ) as conn:
        found = conn.execute("SELECT current_user::text, current_database()::text").fetchone()

    assert found == (server.state.owner.client_id, "databricks_postgres")


def test_a_wrong_client_secret_is_refused(server: LocalServer) -> None:
    state = server.state
    stranger = WorkspaceClient(host=state.url, client_id=state.owner.client_id, client_secret="guessed")

    with pytest.raises((Unauthenticated, ValueError), match="invalid_client"):
        stranger.current_user.me()


def test_projects_branches_and_endpoints_are_listed_page_by_page(workspace: WorkspaceClient) -> None:
    projects = [project.name for project in workspace.postgres.list_projects(page_size=1)]
    branches = {
        branch.name: branch.status and branch.status.default
        for branch in workspace.postgres.list_branches("projects/local", page_size=1)
    }
    endpoints = [
        endpoint.status and endpoint.status.endpoint_type and endpoint.status.endpoint_type.value
        for endpoint in workspace.postgres.list_endpoints("projects/local/branches/production", page_size=1)
    ]

    assert projects == ["projects/local", "projects/other"]
    assert branches == {
        "projects/local/branches/production": True,
        "projects/local/branches/dev": False,
    }
    assert endpoints == ["ENDPOINT_TYPE_READ_WRITE", "ENDPOINT_TYPE_READ_ONLY"]


def test_a_project_names_its_default_branch(workspace: WorkspaceClient) -> None:
    status = workspace.postgres.get_project("projects/local").status

    assert status is not None
    assert status.default_branch == "projects/local/branches/production"


def test_what_does_not_exist_is_not_found(workspace: WorkspaceClient) -> None:
    with pytest.raises(NotFound, match="projects/nowhere"):
        workspace.postgres.get_project("projects/nowhere")

    with pytest.raises(NotFound, match="nobody"):
        workspace.postgres.generate_database_credential(endpoint=ENDPOINT.replace("primary", "nobody"))


def test_roles_tell_how_they_log_in(workspace: WorkspaceClient, server: LocalServer) -> None:
    roles = list(workspace.postgres.list_roles("projects/local/branches/production"))

    names = {role.status.postgres_role for role in roles if role.status}
    assert names == {server.state.owner.client_id, server.state.jobs.client_id}


@pytest.mark.parametrize("seconds", [300, 900, 3600])
def test_a_credential_lives_as_long_as_asked(workspace: WorkspaceClient, seconds: int) -> None:
    before = time.time()

    credential = workspace.postgres.generate_database_credential(ENDPOINT, ttl=Duration(seconds=seconds))

    assert credential.expire_time is not None
    assert credential.expire_time.ToSeconds() == pytest.approx(before + seconds, abs=10)


@pytest.mark.parametrize("seconds", [299, 3601])
def test_a_credential_of_another_length_is_refused(workspace: WorkspaceClient, seconds: int) -> None:
    with pytest.raises(InvalidParameterValue, match="300 to 3600"):
        workspace.postgres.generate_database_credential(ENDPOINT, ttl=Duration(seconds=seconds))


def test_a_credential_is_a_token_with_real_claims(workspace: WorkspaceClient, server: LocalServer) -> None:
    credential = workspace.postgres.generate_database_credential(ENDPOINT)
    assert credential.token is not None
    assert credential.expire_time is not None

    claims = jwt.decode(credential.token, options={"verify_signature": False})

    assert claims["sub"] == server.state.owner.client_id
    assert claims["aud"] == ENDPOINT
    assert claims["iss"] == server.state.url
    assert claims["exp"] == credential.expire_time.ToSeconds()


def test_a_provisioned_instance_resolves_and_mints(workspace: WorkspaceClient, server: LocalServer) -> None:
    instance = workspace.database.get_database_instance("local-instance")
    credential = workspace.database.generate_database_credential(
        instance_names=["local-instance"], request_id="one"
    )

    with psycopg.connect(
        host=instance.read_write_dns,
        port=server.state.port,
        dbname="databricks_postgres",
        user=server.state.owner.client_id,
        password=credential.token,
        sslmode="require",
    ) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_change_feeds_are_made_listed_and_deleted(workspace: WorkspaceClient) -> None:
    feeds = workspace.postgres
    (first,) = feeds.list_cdf_configs(DATABASE)
    assert first.name is not None
    with pytest.raises(AlreadyExists):
        feeds.create_cdf_config(DATABASE, CdfConfig("main", "lakets", "lakets_cdf"))

    feeds.delete_cdf_config(first.name).wait()
    gone = list(feeds.list_cdf_configs(DATABASE))
    feeds.create_cdf_config(DATABASE, CdfConfig("main", "lakets", "lakets_cdf")).wait()

    assert gone == []
    assert feeds.get_cdf_config(first.name).postgres_schema == "lakets_cdf"


def test_a_feed_of_another_schema_is_refused(workspace: WorkspaceClient) -> None:
    with pytest.raises(BadRequest, match="lakets_cdf"):
        workspace.postgres.create_cdf_config(DATABASE, CdfConfig("main", "lakets", "public"))


def test_a_feed_tells_how_each_table_stands(workspace: WorkspaceClient, feeding: LocalServer) -> None:
    (status,) = workspace.postgres.list_cdf_statuses(f"{DATABASE}/cdf-configs/lakets_cdf")

    assert status.state is not None
    assert status.state.value == "CDF_STATE_STREAMING"
    assert status.postgres_table == "lakets_cdf._shadow_probe"
    assert status.uc_table == "main.lakets.lb__shadow_probe_history"


def databases(workspace: WorkspaceClient, branch: str = PRODUCTION) -> dict[str | None, str | None]:
    """Return the Postgres names of a branch's databases by their ids."""
    found = [one.status for one in workspace.postgres.list_databases(branch) if one.status]
    return {status.database_id: status.postgres_database for status in found}


@pytest.mark.parametrize("branch", [PRODUCTION, "projects/local/branches/dev"])
def test_a_database_is_made_logged_in_to_and_deleted(
    workspace: WorkspaceClient, server: LocalServer, branch: str
) -> None:
    role = f"{branch}/roles/{server.state.owner.client_id}"
    spec = DatabaseDatabaseSpec(role=role, postgres_database="sensor_data")

    made = workspace.postgres.create_database(branch, Database(spec=spec)).wait()
    listed = databases(workspace, branch)
    endpoint = workspace.postgres.get_endpoint(f"{branch}/endpoints/primary")
    assert endpoint.status is not None
    assert endpoint.status.hosts is not None
    session = psycopg.connect(
        host=endpoint.status.hosts.host,
        port=server.state.port,
        dbname="sensor_data",
        user=server.state.owner.client_id,
        password=workspace.postgres.generate_database_credential(f"{branch}/endpoints/primary").token,
        sslmode="require",
        autocommit=True,
    )
    session.execute("CREATE TABLE public.probe (id int)")
    workspace.postgres.delete_database(f"{branch}/databases/sensor-data").wait()
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    session.close()

    assert made.name == f"{branch}/databases/sensor-data"
    assert made.status is not None
    assert made.status.role == role
    assert listed == {"databricks-postgres": "databricks_postgres", "sensor-data": "sensor_data"}
    assert databases(workspace, branch) == {"databricks-postgres": "databricks_postgres"}


def test_a_database_id_is_its_name(workspace: WorkspaceClient, server: LocalServer) -> None:
    workspace.postgres.create_database(PRODUCTION, Database(), database_id="by-its-id").wait()

    found = workspace.postgres.get_database(f"{PRODUCTION}/databases/by-its-id").status

    assert found is not None
    assert (found.postgres_database, found.role) == (
        "by-its-id",
        f"{PRODUCTION}/roles/{server.state.owner.client_id}",
    )
    workspace.postgres.delete_database(f"{PRODUCTION}/databases/by-its-id").wait()


def test_a_database_made_by_sql_is_listed(
    workspace: WorkspaceClient, login: Callable[..., psycopg.Connection[Any]]
) -> None:
    session = login()

    session.execute("CREATE DATABASE by_sql")
    listed = databases(workspace)
    session.execute("DROP DATABASE by_sql")

    assert listed["by-sql"] == "by_sql"
    assert "by-sql" not in databases(workspace)


@pytest.mark.parametrize(
    ("name", "database_id", "error", "message"),
    [
        ("databricks_postgres", None, AlreadyExists, "databricks-postgres"),
        ("databricks-postgres", None, AlreadyExists, "databricks-postgres"),
        ("sensor_data", "something-else", InvalidParameterValue, "'sensor-data', not 'something-else'"),
        (None, "UPPER", InvalidParameterValue, "not an id of a database"),
        (None, None, InvalidParameterValue, "requires spec.postgres_database"),
        ("with space", None, InvalidParameterValue, "not a name of a database"),
        ("x" * 64, None, InvalidParameterValue, "not a name of a database"),
    ],
)
def test_a_database_that_cannot_be_is_refused(
    workspace: WorkspaceClient,
    name: str | None,
    database_id: str | None,
    error: type[Exception],
    message: str,
) -> None:
    before = databases(workspace)
    spec = DatabaseDatabaseSpec(role="", postgres_database=name)

    with pytest.raises(error, match=message):
        workspace.postgres.create_database(PRODUCTION, Database(spec=spec), database_id=database_id)

    assert databases(workspace) == before


def test_what_a_branch_does_not_have_is_refused(workspace: WorkspaceClient) -> None:
    nobody = DatabaseDatabaseSpec(role=f"{PRODUCTION}/roles/nobody", postgres_database="sensor_data")

    with pytest.raises(InvalidParameterValue, match="no role"):
        workspace.postgres.create_database(PRODUCTION, Database(spec=nobody))
    with pytest.raises(NotFound, match="branches/nowhere"):
        workspace.postgres.create_database("projects/local/branches/nowhere", Database(spec=nobody))
    with pytest.raises(NotFound, match="nothing-here"):
        workspace.postgres.delete_database(f"{PRODUCTION}/databases/nothing-here")
    with pytest.raises(BadRequest, match="default database of the branch"):
        workspace.postgres.delete_database(DATABASE)


def test_uuid_ossp_is_there_or_something_that_stands_in_for_it(
    login: Callable[..., psycopg.Connection[Any]],
) -> None:
    session = login()

    for _ in range(2):  # as each start of a DBOS 2.x program does
        session.execute('CREATE EXTENSION IF NOT EXISTS "uuid-ossp"')

    assert session.execute("SELECT uuid_generate_v4() <> uuid_generate_v4()").fetchone() == (True,)
    assert session.execute("SELECT gen_random_uuid() IS NOT NULL").fetchone() == (True,)
