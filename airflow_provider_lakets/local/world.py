"""The content of the local workspace: a project to work in, and other projects."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from airflow_provider_lakets.local.api.workspace import (
    READ_ONLY,
    READ_WRITE,
    CdfConfig,
    Instance,
    Workspace,
    database_id,
)
from airflow_provider_lakets.local.feed.catalog import SCHEMA
from airflow_provider_lakets.local.pg.postgres import DEFAULT_DATABASE
from airflow_provider_lakets.local.pg.uuid_ossp import ensure_uuid_ossp

if TYPE_CHECKING:
    from airflow_provider_lakets.local.lakebase import LocalLakebase
    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from airflow_provider_lakets.local.state import State

PROJECT = "local"
_LOOPBACK = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


class World:
    """
    Fill a workspace.

    The workspace has project ``local`` with branches ``production`` (the default) and ``dev``,
    project ``other``, and the provisioned instance ``local-instance``. Endpoints share one port
    and differ by host: loopback addresses, or names below ``host``.

    :param state: The identities.
    :param lakebase: The server of branch ``production``.
    :param host: The host name of this machine for other machines; None for loopback.
    :param version: Postgres major version.
    """

    def __init__(self, state: State, lakebase: LocalLakebase, *, host: str | None, version: int) -> None:
        self.workspace = Workspace({p.client_id: p for p in (state.owner, state.jobs)})
        replica, dev, other = (
            _LOOPBACK if host is None else (f"{name}.{host}" for name in ("replica", "dev", "other"))
        )
        project = self.workspace.add_project(PROJECT, version)
        self.branch = project.add_branch("production", is_default=True)
        self.endpoint = self.branch.add_endpoint("primary", READ_WRITE, host or "127.0.0.1")
        self.branch.add_endpoint("replica", READ_ONLY, replica)
        project.add_branch("dev").add_endpoint("primary", READ_WRITE, dev)
        stranger = self.workspace.add_project("other", version).add_branch("production", is_default=True)
        stranger.add_endpoint("primary", READ_WRITE, other)
        for branch in self.workspace.branches():
            branch.add_database(DEFAULT_DATABASE)
            for principal in (state.owner, state.jobs):
                branch.add_role(principal.client_id, principal.client_id)
        database = self.workspace.database(f"{self.branch.name}/databases/{database_id(DEFAULT_DATABASE)}")
        assert database is not None  # noqa: S101 - made above
        config = CdfConfig(f"{database.name}/cdf-configs/{SCHEMA}", "main", "lakets", SCHEMA)
        database.cdf_configs[config.name] = config
        self.workspace.instances["local-instance"] = Instance("local-instance", self.endpoint, version)
        state.endpoint = self.endpoint.name
        self._owner, self._jobs = state.owner.client_id, state.jobs.client_id
        self.prepare(lakebase.postgres)

    def prepare(self, postgres: EmbeddedPostgres) -> None:
        """
        Create the roles on a branch's server, where the default database exists.

        The owner owns this database and may create roles and databases, like the creator of a
        project. The role of the jobs is a member of the owner, because only members of a table's
        owner can attach and drop its chunks.
        """
        for role in (self._owner, self._jobs):
            postgres.ensure_role(role)
        owner, jobs, database = map(sql.Identifier, (self._owner, self._jobs, DEFAULT_DATABASE))
        with psycopg.connect(postgres.conninfo(DEFAULT_DATABASE), autocommit=True) as conn:
            conn.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, owner))
            conn.execute(sql.SQL("ALTER ROLE {} CREATEROLE CREATEDB").format(owner))
            conn.execute(sql.SQL("GRANT {} TO {}").format(owner, jobs))
        for name in (DEFAULT_DATABASE, "template1"):  # new databases copy the template
            with psycopg.connect(postgres.conninfo(name), autocommit=True) as conn:
                ensure_uuid_ossp(conn)

    def hosts(self) -> list[str]:
        """Return the names and addresses that the certificate covers."""
        named = [
            endpoint.host for branch in self.workspace.branches() for endpoint in branch.endpoints.values()
        ]
        return sorted({*named, "localhost", "127.0.0.1", socket.gethostname()})

    def addresses(self) -> list[str]:
        """Return the loopback addresses to listen on."""
        return ["127.0.0.1", *_LOOPBACK]
