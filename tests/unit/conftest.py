"""A workspace, and a Postgres role that accepts only its minted credentials."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from airflow_provider_lakets.cli import app
from tests.control_plane import ControlPlane
from tests.lab import as_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typer.testing import Result

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.lab import Lab

BY_PASSWORD = "by_password"


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the developer's settings for Databricks, Postgres and Airflow."""
    for name in list(os.environ):
        if re.match("DATABRICKS_|LAKETS_LAKEBASE|LAKETS_PG|PG|AIRFLOW_CONN_|AIRFLOW_CTX_|ARM_", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", os.devnull)


@pytest.fixture(scope="session")
def password_group(postgres: EmbeddedPostgres) -> str:
    """Make the server, which trusts all roles, require a password from the members of one role."""
    with psycopg.connect(postgres.conninfo(), autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {BY_PASSWORD}")
        conn.execute(f"CREATE ROLE probe LOGIN IN ROLE {BY_PASSWORD}")
        rules = postgres.data_dir / "pg_hba.conf"
        rules.write_text(f"local all +{BY_PASSWORD} scram-sha-256\n" + rules.read_text())
        conn.execute("SELECT pg_reload_conf()")
    # The postmaster reads the file at some time, without a report.
    deadline = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(postgres.conninfo(user="probe"), password="wrong").close()
        except psycopg.OperationalError:
            return BY_PASSWORD
        assert time.monotonic() < deadline, "the server did not read pg_hba.conf"
        time.sleep(0.01)


@pytest.fixture
def make_role(postgres: EmbeddedPostgres, password_group: str) -> Iterator[Callable[[str], None]]:
    """Create roles that need a password to log in, but have none yet."""
    made: list[sql.Identifier] = []
    with psycopg.connect(postgres.conninfo(), autocommit=True) as admin:

        def make(name: str) -> None:
            made.append(sql.Identifier(name))
            group = sql.Identifier(password_group)
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}").format(made[-1], group))

        yield make
        for role in made:
            admin.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.fixture
def workspace(
    postgres: EmbeddedPostgres, make_role: Callable[[str], None], bare_environment: None
) -> Iterator[ControlPlane]:
    """Serve a workspace with a project on the embedded server; one credential at a time."""
    with psycopg.connect(postgres.conninfo(), autocommit=True) as admin, ControlPlane() as plane:
        make_role(plane.client_id)
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}")

        def let_in(credential: str) -> None:
            role = plane.user_name or plane.client_id
            admin.execute(statement.format(sql.Identifier(role), sql.Literal(credential)))

        plane.on_mint = let_in
        plane.put_weather(postgres.socket_dir)
        yield plane


@pytest.fixture
def principal(workspace: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> ControlPlane:
    """Put the workspace's service principal into the environment."""
    monkeypatch.setenv("DATABRICKS_HOST", workspace.host)
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", workspace.client_id)
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", workspace.client_secret)
    return workspace


@pytest.fixture
def define(bare_environment: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Define Airflow connections, from fields or from a URI."""

    def define_connection(uri: str = "", conn_id: str = "lakebase_default", **fields: Any) -> None:
        value = uri or json.dumps({"conn_type": "lakebase", "schema": "postgres", **fields})
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", value)

    return define_connection


@pytest.fixture
def lakets(bare_environment: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command in this process, with its current settings."""
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "INFO")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.fixture
def in_lab(lakets: Callable[..., Result], lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command against a database with LakeTS."""
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection())
    return lakets


@pytest.fixture
def empty(
    lakets: Callable[..., Result], empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run a command against a database without LakeTS."""
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", as_uri(empty_database))
    return lakets
