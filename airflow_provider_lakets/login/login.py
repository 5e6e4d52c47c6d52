"""How to log in: what a connection and the environment say, as arguments for libpq."""

from __future__ import annotations

import os
import uuid
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import LakebaseCredentialError
from airflow_provider_lakets.login.endpoint import Endpoint, Resolver, project_page
from airflow_provider_lakets.login.identity import find_host, find_identity
from airflow_provider_lakets.login.login_error import refusal
from airflow_provider_lakets.login.settings import (
    DEFAULT_LIMITS,
    SESSION,
    application_name,
    forbid_clear_text,
    sslmode,
)
from airflow_provider_lakets.login.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Collection

    import psycopg
    from airflow.sdk import Connection

    from airflow_provider_lakets.exceptions import LakeTSError

POSTGRES_PORT = 5432

_NAMES = ("project", "branch", "endpoint", "instance")


class Login:
    """
    The way into one database: with a native password if the connection has one, else by OAuth.

    What is looked up is looked up once; a credential is minted each time.

    :param connection: The Airflow connection.
    :param ignored: Keys of its extra that are not for libpq.
    :param databricks_conn_id: Whose identity to use, before the connection's own ``databricks_conn_id``.
    :param options: Settings for the server, in the form of libpq's ``options``.
    :param name: Name of the sessions; by default DAG, task and run.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        ignored: Collection[str],
        databricks_conn_id: str | None = None,
        options: str = "",
        name: str | None = None,
    ) -> None:
        # A form leaves its empty fields behind as empty texts.
        self._extra = {
            key: value for key, value in connection.extra_dejson.items() if value not in (None, "")
        }
        self._connection = connection
        self._asker = f"Connection {connection.conn_id!r}"
        self._ignored = {*ignored, *_NAMES, "databricks_conn_id", "options", "sslmode"}
        self._databricks_conn_id = databricks_conn_id or self._extra.get("databricks_conn_id")
        # Of settings that are there twice the server takes the last.
        self._options = " ".join(filter(None, [DEFAULT_LIMITS, self._extra.get("options"), options]))
        self._name = name

    def arguments(self) -> dict[str, Any]:
        """Return all arguments but the database and the password."""
        connection = self._connection
        return {
            **SESSION,
            "application_name": self._name or application_name(),
            **{key: value for key, value in self._extra.items() if key not in self._ignored},
            "host": self._host,
            "port": connection.port,
            "user": connection.login or os.environ.get("LAKETS_PG_ROLE") or self._identity_role(),
            "sslmode": sslmode(self._extra),
            "options": self._options,
        }

    def fresh(self) -> dict[str, Any]:
        """Return the arguments for a login right now, with a password of its own."""
        arguments = self.arguments()
        if self.is_native:
            return {**arguments, "password": self._connection.password}
        forbid_clear_text(arguments, asker=self._asker)
        return {**arguments, "password": self._mint()}

    @property
    def is_native(self) -> bool:
        """Whether the password is the role's own, kept in the connection."""
        return bool(self._connection.password)

    @property
    def address(self) -> str:
        """Host and port, looked up if need be."""
        return f"{self._host}:{self._connection.port or POSTGRES_PORT}"

    @property
    def means(self) -> str:
        """By what the role proves itself, in words."""
        if self.is_native:
            return "its native Postgres password"
        return f"a credential for {self._endpoint.name} of the {self._workspace.identity.name}"

    def page(self) -> str | None:
        """Return where the workspace shows the project, if that is known without asking the workspace."""
        known = self.__dict__  # what a login has looked up
        endpoint: Endpoint | None = known.get("_endpoint")
        names = self._names
        if endpoint:
            names = {"instance" if endpoint.is_instance else "endpoint": endpoint.name}
        workspace: Workspace | None = known.get("_workspace")
        host = workspace.identity.host if workspace else find_host(self._databricks_conn_id)
        return project_page(host, names)

    def explain(self, err: psycopg.Error, database: str) -> LakeTSError:
        """
        Return the error to raise in place of psycopg's for a login that failed.

        :param err: What psycopg raised.
        :param database: The database that was asked for.
        """
        login = self.arguments()
        asked = (
            f"{self._asker}: the login to {login['host']} as role {login['user']!r}, database {database!r}, "
            f"with {self.means}"
        )
        if not self._connection.host:
            self.__dict__.pop("_endpoint", None)  # it may have moved: the next try looks it up again
        return refusal(err, asked, is_native=self.is_native)

    @property
    def _host(self) -> str:
        # Without a password the endpoint is needed even where the host is given: to mint for it.
        if self.is_native and self._connection.host:
            return self._connection.host
        return self._endpoint.host

    @cached_property
    def _workspace(self) -> Workspace:
        return Workspace(find_identity(self._databricks_conn_id, self._asker))

    @cached_property
    def _endpoint(self) -> Endpoint:
        return Resolver(self._workspace, host=self._connection.host, **self._names).resolve()

    @property
    def _names(self) -> dict[str, str | None]:
        names = {name: self._extra.get(name) for name in _NAMES}
        if not (names["project"] or names["endpoint"] or names["instance"]):
            names["endpoint"] = os.environ.get("LAKETS_LAKEBASE_ENDPOINT")
        return names

    def _identity_role(self) -> str:
        """Return the role that goes with the identity: its own name."""
        if self.is_native:
            raise LakebaseCredentialError(
                f"{self._asker} has a password but no login. Set the login to the "
                "password's Postgres role, or take the password out to log in by OAuth."
            )
        identity = self._workspace.identity
        if identity.role is None:
            with self._workspace.telling("the identity's own name"):
                identity.role = str(self._workspace.get("preview/scim/v2/Me")["userName"])
        return identity.role

    def _mint(self) -> str:
        """Return a new credential; it is good for an hour at most, and asked for at the login only."""
        name = self._endpoint.name
        path, body = "postgres/credentials", dict[str, Any](endpoint=name)
        if self._endpoint.is_instance:
            path, body = "database/credentials", {"instance_names": [name], "request_id": str(uuid.uuid4())}
        with self._workspace.telling(f"a database credential for {name!r}"):
            token = self._workspace.post(path, body).get("token")
        if token:
            return str(token)
        raise LakebaseCredentialError(
            f"{self._asker}: a database credential for {name!r} was asked for by "
            f"the {self._workspace.identity.name}, but the answer holds none."
        )
