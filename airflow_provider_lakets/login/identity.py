"""Who am I: the Databricks identity that asks for database credentials, and how it proves itself."""

from __future__ import annotations

import base64
import os
import re
import threading
import time
from typing import TYPE_CHECKING

import requests
from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
from airflow.sdk import BaseHook
from requests.auth import HTTPBasicAuth

from airflow_provider_lakets import __version__
from airflow_provider_lakets.exceptions import LakebaseConnectionError, LakebaseCredentialError
from airflow_provider_lakets.login.rest import RestError, blot, send, workspace_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Connection

# What Airflow raises for a connection that is not defined; 3.1 outside a task lacks the way to ask.
NOT_DEFINED = (AirflowNotFoundException, ImportError)

RENEW_BEFORE = 120.0  # seconds before its end at which a workspace token counts as used up

# Login kinds that a Databricks connection prefers to its service principal, see BaseDatabricksHook.
_PREFERRED_KINDS = {"token", "azure_tenant_id", "use_azure_managed_identity", "use_default_azure_credential"}

_ENVIRONMENT = "DATABRICKS_HOST, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET"


class Identity:
    """
    Somebody the workspace knows.

    :param asker: The Airflow connection that needs an identity, for messages.
    :param host: Address of the workspace.
    :param name: The identity and where it was found, for messages.
    :param role: The Postgres role that goes with it, when that is known without asking.
    :param proxies: Proxies in the form of requests.
    """

    def __init__(
        self,
        asker: str,
        host: str,
        name: str,
        *,
        role: str | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self.asker = asker
        self.host = workspace_url(host, asker)
        self.name = name
        self.role = role
        self.session = requests.Session()
        # Plain HTTP is for this machine only, see workspace_url: no proxy of the environment's then.
        self.session.trust_env = self.host.startswith("https:")
        self.session.proxies.update(proxies or {})
        self.session.headers["User-Agent"] = f"airflow-provider-lakets/{__version__}"

    def headers(self) -> dict[str, str]:
        """Return the HTTP headers that prove the identity now."""
        raise NotImplementedError

    def forget(self) -> bool:
        """Drop a proof that was refused; False if there is none to drop."""
        return False


class ServicePrincipal(Identity):
    """
    A service principal with its OAuth secret (machine to machine).

    This kind is asked for directly: databricks-sdk takes seconds to import, and the Databricks
    provider's hook reaches https on port 443 only.

    :param client_id: Application id; it is also the name of the principal's Postgres role.
    :param secret: Its OAuth secret.
    """

    def __init__(
        self,
        asker: str,
        host: str,
        client_id: str,
        secret: str,
        *,
        found: str,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        name = f"service principal {client_id} ({found})"
        super().__init__(asker, host, name, role=client_id, proxies=proxies)
        self._proof = HTTPBasicAuth(client_id, secret)
        self._secrets = [secret, base64.b64encode(f"{client_id}:{secret}".encode()).decode()]
        self._token = ""
        self._renew_at = 0.0
        self._lock = threading.Lock()  # the threads of a pool log in side by side

    def headers(self) -> dict[str, str]:
        """Return the token of the principal, renewed when it is about to end."""
        with self._lock:
            if time.monotonic() >= self._renew_at:
                self._renew()
            return {"Authorization": f"Bearer {self._token}"}

    def forget(self) -> bool:
        """Have the next request fetch a new token."""
        self._renew_at = 0.0
        return True

    def _renew(self) -> None:
        form = {"grant_type": "client_credentials", "scope": "all-apis"}
        try:
            answer = send(
                self.session,
                "POST",
                f"{self.host}/oidc/v1/token",
                secrets=self._secrets,
                data=form,
                auth=self._proof,
            )
        except RestError as err:
            if err.is_transient:
                raise LakebaseConnectionError(
                    f"{self.asker}: the {self.name} got no token. {err} Try again later."
                ) from err
            raise LakebaseCredentialError(
                f"{self.asker}: the {self.name} was refused a token. {err} Check the client id, that its "
                "secret has not expired, and that the principal belongs to the workspace."
            ) from err
        if not (token := answer.get("access_token")):
            raise LakebaseCredentialError(
                f"{self.asker}: the {self.name} asked {self.host} for a token, but the answer holds none."
            )
        self._token = str(token)
        self._renew_at = time.monotonic() + float(answer.get("expires_in", 0)) - RENEW_BEFORE


class ConnectionIdentity(Identity):
    """
    The identity of a Databricks connection of any login kind, by the Databricks provider's own hook.

    :param connection: The connection.
    """

    def __init__(self, asker: str, connection: Connection) -> None:
        from airflow.providers.databricks.hooks.databricks_base import BaseDatabricksHook

        extra, name = connection.extra_dejson, f"identity of Databricks connection {connection.conn_id!r}"
        super().__init__(asker, _host(connection), name, proxies=extra.get("proxies"))
        self._secrets = [value for value in (connection.password, extra.get("token")) if value]
        self._hook = BaseDatabricksHook(connection.conn_id)

    def headers(self) -> dict[str, str]:
        """Return the token that the hook finds, renewed by it as needed."""
        try:
            # The hook has no public way to its token, only operators built on it.
            if token := self._hook._get_token(raise_error=True):
                return {"Authorization": f"Bearer {token}", **self._hook._get_aad_headers()}
            problem = "it has a user name and password, which Databricks no longer takes"
        except Exception as err:
            problem = f"{type(err).__name__}: {blot(str(err), self._secrets)}"
        # Raised out here without a cause: the hook's own errors may quote the token they choked on.
        raise LakebaseCredentialError(
            f"{self.asker}: the {self.name} has no token: {problem}. Correct that connection; a service "
            'principal has login = client id, password = secret and extra {"service_principal_oauth": true}.'
        )

    def forget(self) -> bool:
        """Drop the hook's tokens."""
        self._hook.oauth_tokens.clear()
        return True


class EnvironmentIdentity(Identity):
    """Whatever databricks-sdk finds: variables, a profile, Azure, Google, a notebook. Slow to import."""

    def __init__(self, asker: str) -> None:
        from databricks.sdk.core import Config

        try:
            # Its own limit is five minutes, on a host that may merely be misspelt.
            self._config = Config(http_timeout_seconds=30, retry_timeout_seconds=60)
            problem = "" if self._config.host else "it names no host"
        except Exception as err:
            problem = blot(str(err), _environment_secrets())
        if problem:
            raise LakebaseCredentialError(
                f"{asker} has no Databricks identity: {problem}. Set {_ENVIRONMENT}, or name a Databricks "
                "connection as databricks_conn_id in the extra; or log in with a native Postgres password."
            )
        super().__init__(asker, self._config.host, f"{self._config.auth_type} identity of the environment")

    def headers(self) -> dict[str, str]:
        """Return what the SDK sends, renewed by it as needed."""
        try:
            return self._config.authenticate()
        except Exception as err:
            problem = f"{type(err).__name__}: {blot(str(err), _environment_secrets())}"
        raise LakebaseCredentialError(f"{self.asker}: the {self.name} has no token: {problem}.")


def find_identity(databricks_conn_id: str | None, asker: str) -> Identity:
    """
    Return the identity of a Databricks connection, or else the environment's.

    :param databricks_conn_id: Id of the connection; None for the environment.
    :param asker: The Airflow connection that needs an identity, for messages.
    """
    if databricks_conn_id:
        return _from_connection(databricks_conn_id, asker)
    env = os.environ
    names = ("DATABRICKS_HOST", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET")
    host, client_id, secret = (env.get(name) for name in names)
    # Where more is set than these, which of it counts is the SDK's to say.
    more = env.get("DATABRICKS_TOKEN") or env.get("DATABRICKS_AUTH_TYPE", "oauth-m2m") != "oauth-m2m"
    if host and client_id and secret and not more:
        return ServicePrincipal(asker, host, client_id, secret, found="environment")
    return EnvironmentIdentity(asker)


def find_host(databricks_conn_id: str | None) -> str | None:
    """
    Return the address of the workspace, without proving an identity; None if nothing names it.

    :param databricks_conn_id: Id of the Databricks connection; None for the environment.
    """
    if databricks_conn_id:
        return _host(BaseHook.get_connection(databricks_conn_id))
    return os.environ.get("DATABRICKS_HOST")


def _from_connection(conn_id: str, asker: str) -> Identity:
    try:
        connection = BaseHook.get_connection(conn_id)
    except NOT_DEFINED as err:
        raise LakebaseCredentialError(
            f"{asker} names the Databricks connection {conn_id!r} (databricks_conn_id), which is not "
            f"defined. Define it, or take databricks_conn_id out to use the environment: {_ENVIRONMENT}."
        ) from err
    extra = connection.extra_dejson
    by_secret = extra.get("service_principal_oauth") and not any(map(extra.get, _PREFERRED_KINDS))
    if by_secret and connection.login and connection.password:
        return ServicePrincipal(
            asker,
            _host(connection),
            connection.login,
            connection.password,
            found=f"Databricks connection {conn_id!r}",
            proxies=extra.get("proxies"),
        )
    return ConnectionIdentity(asker, connection)


def _host(connection: Connection) -> str:
    """Return the address in a Databricks connection, where scheme and port may be fields of their own."""
    host = connection.extra_dejson.get("host") or connection.host
    if not host:
        raise LakebaseCredentialError(
            f"The Databricks connection {connection.conn_id!r} has no host: set the workspace's address."
        )
    scheme, _, rest = host.rpartition("://")
    scheme = scheme or (connection.schema if connection.schema in ("http", "https") else "https")
    has_port = re.search(r":\d+/?$", rest)
    port = f":{connection.port}" if connection.port and not has_port else ""
    return f"{scheme}://{rest.rstrip('/')}{port}"


def _environment_secrets() -> list[str]:
    """Return the values of the Databricks and Azure variables that hold secrets."""
    secret = re.compile("(?i)(databricks|arm|azure).*(secret|token|password)")
    return [value for name, value in os.environ.items() if secret.search(name) and value]
