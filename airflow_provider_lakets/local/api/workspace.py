"""The simulated workspace of the local Lakebase: projects, branches, endpoints, identities."""

from __future__ import annotations

import re
import secrets
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

READ_WRITE = "ENDPOINT_TYPE_READ_WRITE"
READ_ONLY = "ENDPOINT_TYPE_READ_ONLY"

Answer = dict[str, Any]


@dataclass
class Principal:
    """A service principal; its application id is its user name and its default Postgres role."""

    name: str
    client_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    client_secret: str = field(default_factory=lambda: f"dose{secrets.token_hex(16)}", repr=False)


@dataclass
class Role:
    """A Postgres role: its identity logs in with a credential, or anybody with its password."""

    name: str
    postgres_role: str
    identity: str | None = None

    def answer(self) -> Answer:
        """Return the resource as in the REST API."""
        method = "LAKEBASE_OAUTH_V1" if self.identity else "PG_PASSWORD_SCRAM_SHA_256"
        status = {"postgres_role": self.postgres_role, "auth_method": method, "role_id": _last(self.name)}
        if self.identity:
            status["identity_type"] = "SERVICE_PRINCIPAL"
        return {"name": self.name, "parent": _parent(self.name), "status": status}


@dataclass
class CdfConfig:
    """A change feed: the tables of a Postgres schema go to a schema of Unity Catalog."""

    name: str
    catalog: str
    schema: str
    postgres_schema: str

    def answer(self) -> Answer:
        """Return the resource as in the REST API."""
        return {
            "name": self.name,
            "cdf_config_id": _last(self.name),
            "catalog": self.catalog,
            "schema": self.schema,
            "postgres_schema": self.postgres_schema,
        }


@dataclass
class Database:
    """A Postgres database and its change feeds."""

    name: str
    postgres_database: str
    owner: str = ""
    cdf_configs: dict[str, CdfConfig] = field(default_factory=dict)

    def answer(self) -> Answer:
        """Return the resource as in the REST API."""
        status = {"postgres_database": self.postgres_database, "database_id": _last(self.name)}
        if self.owner:
            status["role"] = f"{_parent(self.name)}/roles/{_id(self.owner)}"
        return {"name": self.name, "parent": _parent(self.name), "status": status}


@dataclass
class Endpoint:
    """An endpoint that clients log in to."""

    name: str
    kind: Literal["ENDPOINT_TYPE_READ_WRITE", "ENDPOINT_TYPE_READ_ONLY"]
    host: str

    def answer(self) -> Answer:
        """Return the resource as in the REST API."""
        return {
            "name": self.name,
            "parent": _parent(self.name),
            "status": {
                "endpoint_id": _last(self.name),
                "endpoint_type": self.kind,
                "current_state": "ACTIVE",
                "hosts": {"host": self.host},
            },
        }


@dataclass
class Branch:
    """A branch: a separate Postgres server behind one or more endpoints."""

    name: str
    is_default: bool
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    databases: dict[str, Database] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)

    def answer(self) -> Answer:
        """Return the resource as in the REST API."""
        return {
            "name": self.name,
            "parent": _parent(self.name),
            "status": {
                "branch_id": _last(self.name),
                "default": self.is_default,
                "current_state": "READY",
                "is_protected": False,
            },
        }

    def add_endpoint(self, endpoint_id: str, kind: Any, host: str) -> Endpoint:
        """Add an endpoint."""
        name = f"{self.name}/endpoints/{endpoint_id}"
        self.endpoints[name] = endpoint = Endpoint(name, kind, host)
        return endpoint

    def add_database(self, postgres_database: str) -> Database:
        """Add a database."""
        name = f"{self.name}/databases/{database_id(postgres_database)}"
        self.databases[name] = database = Database(name, postgres_database)
        return database

    def add_role(self, postgres_role: str, identity: str | None = None) -> Role:
        """Add a Postgres role."""
        name = f"{self.name}/roles/{_id(postgres_role)}"
        self.roles[name] = role = Role(name, postgres_role, identity)
        return role


@dataclass
class Project:
    """A project and its branches."""

    name: str
    pg_version: int
    branches: dict[str, Branch] = field(default_factory=dict)

    def answer(self) -> Answer:
        """Return the resource as in the REST API."""
        default = next((branch.name for branch in self.branches.values() if branch.is_default), None)
        return {
            "name": self.name,
            "status": {
                "project_id": _last(self.name),
                "display_name": _last(self.name),
                "pg_version": self.pg_version,
                "enable_pg_native_login": True,
                **({"default_branch": default} if default else {}),
            },
        }

    def add_branch(self, branch_id: str, *, is_default: bool = False) -> Branch:
        """Add a branch."""
        name = f"{self.name}/branches/{branch_id}"
        self.branches[name] = branch = Branch(name, is_default)
        return branch


@dataclass
class Instance:
    """A provisioned instance, as Lakebase had before projects: another name for an endpoint."""

    name: str
    endpoint: Endpoint
    pg_version: int

    def answer(self) -> Answer:
        """Return the resource as in the REST API."""
        return {
            "name": self.name,
            "capacity": "CU_1",
            "state": "AVAILABLE",
            "pg_version": f"PG_VERSION_{self.pg_version}",
            "read_write_dns": self.endpoint.host,
            "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, self.name)),
        }


@dataclass
class Workspace:
    """The workspace with all its resources."""

    principals: dict[str, Principal] = field(default_factory=dict)
    projects: dict[str, Project] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)

    def add_project(self, project_id: str, pg_version: int) -> Project:
        """Add a project without branches."""
        name = f"projects/{project_id}"
        self.projects[name] = project = Project(name, pg_version)
        return project

    def branches(self) -> list[Branch]:
        """Return the branches of all projects."""
        return [branch for project in self.projects.values() for branch in project.branches.values()]

    def branch(self, name: str) -> Branch | None:
        """Return the branch with this resource name."""
        return next((branch for branch in self.branches() if branch.name == name), None)

    def branch_of(self, endpoint: Endpoint) -> Branch:
        """Return the branch behind an endpoint."""
        return next(branch for branch in self.branches() if endpoint.name in branch.endpoints)

    def endpoint(self, name: str) -> Endpoint | None:
        """Return the endpoint with this resource name."""
        return next((b.endpoints[name] for b in self.branches() if name in b.endpoints), None)

    def endpoint_at(self, host: str) -> Endpoint | None:
        """Return the endpoint with this host."""
        return next((e for b in self.branches() for e in b.endpoints.values() if e.host == host), None)

    def database(self, name: str) -> Database | None:
        """Return the database with this resource name."""
        return next((b.databases[name] for b in self.branches() if name in b.databases), None)


def database_id(postgres_database: str) -> str:
    """Return the id of a database, the last part of its resource name."""
    return _id(postgres_database)


def _id(name: str) -> str:
    return re.sub("[^a-z0-9-]", "-", name.lower())


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _parent(name: str) -> str:
    return name.rsplit("/", 2)[0]
