"""All other identities, which the Databricks provider or databricks-sdk authenticates."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from airflow_provider_lakets.exceptions import LakebaseCredentialError
from airflow_provider_lakets.login.address import workspace_url
from airflow_provider_lakets.login.fields import read_extra
from airflow_provider_lakets.login.gate import clean, said, shown
from airflow_provider_lakets.login.who.identity import Identity

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from databricks.sdk.core import Config

ENVIRONMENT = "DATABRICKS_HOST, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET"


def workspace_of(connection: Connection) -> str:
    """Return the URL in a Databricks connection; scheme and port may be separate fields."""
    conn_label = f"Databricks connection {shown(connection.conn_id)}"
    host = str(read_extra(connection).get("host") or connection.host or "").strip()
    if not host:
        raise LakebaseCredentialError(f"{conn_label} has no host: set the workspace's address.")
    if "://" not in host:
        host = f"{connection.schema if connection.schema in ('http', 'https') else 'https'}://{host}"
    url = workspace_url(host, conn_label)
    has_port = re.search(r":\d+$", url)
    return f"{url}:{connection.port}" if connection.port and not has_port else url


class ConnectionIdentity(Identity):
    """
    The identity of a Databricks connection, authenticated by the hook of the Databricks provider.

    :param connection: The connection.
    """

    def __init__(self, conn_label: str, connection: Connection) -> None:
        from airflow.providers.databricks.hooks.databricks_base import BaseDatabricksHook

        conn_id, extra = connection.conn_id, read_extra(connection)
        name = f"identity of Databricks connection {shown(conn_id)}"
        super().__init__(conn_label, workspace_of(connection), name, proxies=extra.get("proxies"))
        given = {"password": connection.password, "extra.token": extra.get("token")}
        # Reject malformed secrets here, because the hook's libraries would repeat them in errors.
        self.secrets = [
            clean(value, f"{field} of Databricks connection {shown(conn_id)}", conn_label)
            for field, value in given.items()
            if value
        ]
        self._hook_class = BaseDatabricksHook
        self._conn_id = conn_id
        self.forget()

    def headers(self) -> dict[str, str]:
        """Return the token of the hook, which renews it as needed."""
        try:
            # The hook has no public method that returns the token.
            if token := self._hook._get_token(raise_error=True):
                return {"Authorization": f"Bearer {token}", **self._hook._get_aad_headers()}
            problem = "it has a user name and password, which Databricks no longer accepts"
        except Exception as err:
            problem = f"{type(err).__name__}: {said(err, self.secrets)}"
        # Raised here without a cause, because the errors of the hook may contain the token.
        raise LakebaseCredentialError(
            f"{self.conn_label}: the {self.name} has no token: {problem}. Correct that connection; a service "
            'principal has login = client id, password = secret and extra {"service_principal_oauth": true}.'
        )

    def forget(self) -> bool:
        """Make the next request read the connection again."""
        self._hook = self._hook_class(self._conn_id)
        return True


class EnvironmentIdentity(Identity):
    """The identity that databricks-sdk finds in variables, a profile or a cloud; this is slow."""

    def __init__(self, conn_label: str) -> None:
        secrets = _environment_secrets(conn_label)
        if host := os.environ.get("DATABRICKS_HOST"):
            workspace_url(host, conn_label)  # check it before the SDK sends a request

        self._config = _read_config(conn_label, secrets)
        super().__init__(
            conn_label, str(self._config.host), f"{said(self._config.auth_type)} identity of the environment"
        )
        self.secrets = [*secrets, *_config_secrets(self._config, conn_label)]

    def headers(self) -> dict[str, str]:
        """Return the headers of the SDK, which renews the token as needed."""
        try:
            return dict(self._config.authenticate())
        except Exception as err:
            problem = f"{type(err).__name__}: {said(err, self.secrets)}"
        raise LakebaseCredentialError(f"{self.conn_label}: the {self.name} has no token: {problem}.")

    def forget(self) -> bool:
        """Make the next request authenticate with a new SDK configuration."""
        self._config = _read_config(self.conn_label, self.secrets)
        return True


def _read_config(conn_label: str, secrets: list[str]) -> Config:
    from databricks.sdk.core import Config

    try:
        # The SDK's default is five minutes, which is too long if the host is only misspelt.
        config = Config(http_timeout_seconds=30, retry_timeout_seconds=60)
        problem = "" if config.host else "it names no host"
    except Exception as err:
        # The SDK appends all its settings to the message; they are cut off.
        problem = said(err, secrets).partition(" Config: ")[0].rstrip(".")
    if problem:
        raise LakebaseCredentialError(
            f"{conn_label} has no Databricks identity: {problem}. Set {ENVIRONMENT}, or name a Databricks "
            "connection as databricks_conn_id in the extra; or log in with a native Postgres password."
        )
    return config


def _environment_secrets(conn_label: str) -> list[str]:
    """Return the checked values of the Databricks and Azure variables that hold secrets."""
    secret = re.compile("(DATABRICKS|ARM)_.*(SECRET|TOKEN|PASSWORD)|AZURE_CLIENT_SECRET")
    return [
        clean(value, f"{name} in the environment", conn_label)
        for name, value in os.environ.items()
        if secret.fullmatch(name) and value
    ]


def _config_secrets(config: Config, conn_label: str) -> list[str]:
    """Return the secrets that the SDK read from other sources, such as a profile."""
    found = []
    for attribute in config.attributes():
        value = getattr(config, attribute.name, None)
        if (
            attribute.sensitive
            and isinstance(value, str)
            and value
            and attribute.name != "google_credentials"
        ):
            found.append(
                clean(value, f"{attribute.name} of the environment's Databricks identity", conn_label)
            )
    return found
