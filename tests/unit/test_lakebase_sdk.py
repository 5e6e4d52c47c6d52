"""databricks-sdk accepts the stand-in for a workspace too, so the hook's tests are realistic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound

if TYPE_CHECKING:
    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.control_plane import ControlPlane

PRIMARY = "projects/weather/branches/production/endpoints/primary"


@pytest.fixture
def client(workspace: ControlPlane) -> WorkspaceClient:
    return WorkspaceClient(
        host=workspace.host, client_id=workspace.client_id, client_secret=workspace.client_secret
    )


def test_sdk_gets_an_endpoint_and_a_credential_that_logs_in(
    client: WorkspaceClient, workspace: ControlPlane, postgres: EmbeddedPostgres
) -> None:
    endpoint = client.postgres.get_endpoint(PRIMARY)
    assert endpoint.status
    assert endpoint.status.hosts
    credential = client.postgres.generate_database_credential(PRIMARY)

    with psycopg.connect(
        host=endpoint.status.hosts.host,
        user=client.current_user.me().user_name,
        password=credential.token,
        dbname="postgres",
        sslmode="require",
    ) as conn:
        row = conn.execute("SELECT current_user").fetchone()

    assert row == (workspace.client_id,)


def test_sdk_pages_through_the_branches(client: WorkspaceClient) -> None:
    branches = {branch.name: branch for branch in client.postgres.list_branches("projects/weather")}

    default = branches["projects/weather/branches/production"].status
    assert len(branches) == 2
    assert default
    assert default.default


def test_sdk_gets_a_credential_for_a_provisioned_instance(
    client: WorkspaceClient, workspace: ControlPlane
) -> None:
    workspace.instances["instances/legacy"] = {"name": "legacy", "read_write_dns": "legacy.example.com"}

    instance = client.database.get_database_instance("legacy")
    credential = client.database.generate_database_credential(instance_names=[instance.name])

    assert instance.read_write_dns == "legacy.example.com"
    assert [credential.token] == workspace.minted


def test_sdk_understands_the_errors(client: WorkspaceClient) -> None:
    with pytest.raises(NotFound, match="projects/wether not found"):
        client.postgres.get_project("projects/wether")
