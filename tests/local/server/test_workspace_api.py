"""The unmodified databricks-sdk and psycopg on the local Lakebase, as Databricks' documentation tells it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import jwt
import psycopg
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import AlreadyExists, BadRequest, InvalidParameterValue, NotFound, Unauthenticated
from databricks.sdk.service.postgres import CdfConfig
from google.protobuf.duration_pb2 import Duration

if TYPE_CHECKING:
    from airflow_provider_lakets.local.client import LocalServer

ENDPOINT = "projects/local/branches/production/endpoints/primary"
DATABASE = "projects/local/branches/production/databases/databricks-postgres"


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
