"""Turn a connection and the environment into arguments for libpq."""

from __future__ import annotations

import os
import uuid
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakebaseResolutionError
from airflow_provider_lakets.login import fields
from airflow_provider_lakets.login.endpoint import Endpoint, Resolver, place_of, project_page
from airflow_provider_lakets.login.gate import clean, shown
from airflow_provider_lakets.login.login_error import login_error
from airflow_provider_lakets.login.place import Place, find_place
from airflow_provider_lakets.login.settings import DEFAULT_LIMITS, SESSION, application_name
from airflow_provider_lakets.login.tls import forbid_clear_text, secured
from airflow_provider_lakets.login.who.find_identity import find_host, find_identity
from airflow_provider_lakets.login.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_lakets.exceptions import LakeTSError

POSTGRES_PORT = 5432

DEFAULT_DATABASE = "databricks_postgres"


class Login:
    """
    A login to one database: with the native password of the connection, or with OAuth otherwise.

    The endpoint and the identity are looked up once. A credential is minted for each login.

    :param connection: The Airflow connection, or an object with the same attributes.
    :param ignored: Keys of its extra that are not for libpq.
    :param databricks_conn_id: The Databricks connection whose identity is used; the default is
        ``databricks_conn_id`` of the connection.
    :param options: Settings for the server, in the form of libpq's ``options``.
    :param name: The name of the sessions; the default is DAG, task and run.
    :param defaults: Settings of libpq that the connection can override.
    """

    def __init__(
        self,
        connection: fields.Connection,
        *,
        ignored: Collection[str] = (),
        databricks_conn_id: str | None = None,
        options: str = "",
        name: str | None = None,
        defaults: Mapping[str, Any] = SESSION,
    ) -> None:
        self._fields = fields.read(connection, ignored)
        self._conn_label = self._fields.conn_label
        self._databricks_conn_id = databricks_conn_id or self._fields.databricks_conn_id
        # If a setting occurs twice, the server uses the last value.
        own = self._fields.settings.get("options")
        self._options = " ".join(str(part) for part in (DEFAULT_LIMITS, own, options) if part)
        self._name = name
        self._defaults = defaults

    def arguments(self, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """
        Return all arguments except the database and the password.

        :param more: Settings of libpq in place of the connection's; ``options`` are added.
        """
        more = more or {}
        settings = {**self._defaults, **self._fields.settings, **more}
        options = f"{self._options} {more['options']}" if more.get("options") else self._options
        return {
            "application_name": self._name or application_name(),
            **settings,
            **secured(settings, self._host, self._conn_label),
            "host": self._host,
            "port": self._port,
            "user": self._role,
            "options": options,
        }

    def fresh(self, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """
        Return the arguments for an immediate login: those of :meth:`arguments` and a password.

        :param more: Settings of libpq in place of the connection's; ``options`` are added.
        """
        arguments = self.arguments(more)
        if self._fields.password:
            return {**arguments, "password": self._fields.password}
        forbid_clear_text(arguments, conn_label=self._conn_label)
        return {**arguments, "password": self.mint()}

    @cached_property
    def workspace(self) -> Workspace:
        """The workspace, accessed as the identity of the connection."""
        return Workspace(find_identity(self._databricks_conn_id, self._conn_label))

    @cached_property
    def endpoint(self) -> Endpoint:
        """The endpoint of the connection."""
        place = self._place  # rejects contradictions before the first request
        return Resolver(self.workspace, place, self._fields.host).resolve()

    def mint(self) -> str:
        """Return a new credential for a login; it is valid for at most one hour."""
        endpoint, identity = self.endpoint, self.workspace.identity
        path, body = "postgres/credentials", dict[str, Any](endpoint=endpoint.name)
        if endpoint.is_instance:
            request = {"instance_names": [endpoint.name], "request_id": str(uuid.uuid4())}
            path, body = "database/credentials", request
        what = f"a database credential for {endpoint.name!r}"
        with self.workspace.explain_errors(what):
            token = self.workspace.post(path, body).secret("token")
        if token:
            return clean(token, f"{what}, as answered by {identity.host},", self._conn_label)
        raise LakebaseCredentialError(
            f"{self._conn_label}: the {identity.name} requested {what}, but the response contains none."
        )

    @property
    def is_native(self) -> bool:
        """Whether the connection contains a native Postgres password."""
        return bool(self._fields.password)

    @property
    def native_password(self) -> str | None:
        """The native Postgres password of the connection, if any."""
        return self._fields.password

    @property
    def database(self) -> str:
        """The database of the connection."""
        return self._fields.database or DEFAULT_DATABASE

    @property
    def address(self) -> str:
        """Host and port, looked up if necessary."""
        return f"{self._host}:{self._port}"

    @property
    def means(self) -> str:
        """A description of the credential of the role."""
        if self.is_native:
            return "its native Postgres password"
        return f"a credential for {self.endpoint.name} of the {self.workspace.identity.name}"

    @property
    def remembers(self) -> bool:
        """Whether the endpoint or the workspace is cached and may be out of date."""
        return not self.__dict__.keys().isdisjoint({"endpoint", "workspace"})

    def page(self) -> str | None:
        """Return the URL of the project in the workspace, if it is known without a request."""
        known = self.__dict__  # the cached properties
        endpoint: Endpoint | None = known.get("endpoint")
        workspace: Workspace | None = known.get("workspace")
        url = workspace.identity.host if workspace else find_host(self._databricks_conn_id)
        return project_page(url, place_of(endpoint) if endpoint else self._place)

    def explain(self, err: Exception, tried: Mapping[str, Any]) -> LakeTSError:
        """
        Return the error to raise for a failed login, in place of psycopg's error.

        :param err: The error of psycopg.
        :param tried: The arguments of the login.
        """
        asked = (
            f"{self._conn_label}: the login to {tried['host']} as role {tried['user']!r}, database "
            f"{shown(tried['dbname'])}, with {self.means}"
        )
        if not self._fields.host:
            self.__dict__.pop("endpoint", None)  # its host may have changed; the next try looks it up again
        return login_error(err, asked, password=tried["password"], is_native=self.is_native)

    @property
    def _host(self) -> str:
        # Without a password the endpoint is required even if the host is given, to mint for it.
        if self.is_native and self._fields.host:
            return self._fields.host
        return self.endpoint.host

    @property
    def _port(self) -> int:
        if self._fields.port:
            return self._fields.port
        # PGPORT applies only if the connection names no host.
        variable = None if self._fields.host else os.environ.get("PGPORT")
        return fields.port_number(variable, f"{self._conn_label}: PGPORT in the environment") or POSTGRES_PORT

    @property
    def _place(self) -> Place:
        return find_place(self._fields.place, self._conn_label)

    @property
    def _role(self) -> str:
        variable = fields.text(os.environ.get("LAKETS_PG_ROLE", ""), "LAKETS_PG_ROLE", self._conn_label)
        return self._fields.role or variable or self._identity_role()

    def _identity_role(self) -> str:
        """Return the default role: the name of the identity."""
        if self.is_native:
            raise LakebaseCredentialError(
                f"{self._conn_label} has a password but no login. Set the login to the "
                "password's Postgres role, or remove the password to log in with OAuth."
            )
        identity = self.workspace.identity
        if identity.role is None:
            with self.workspace.explain_errors("the identity's own name"):
                identity.role = self.workspace.get("preview/scim/v2/Me").text("userName")
        if identity.role is None:
            raise LakebaseResolutionError(
                f"{self._conn_label}: the workspace does not name the {identity.name}. "
                "Set the login to its role."
            )
        return identity.role
