"""Find the identity in a Databricks connection, or in the environment otherwise."""

from __future__ import annotations

import os

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakeTSError
from airflow_provider_lakets.login.address import without_user, workspace_url
from airflow_provider_lakets.login.fields import read_extra
from airflow_provider_lakets.login.gate import shown
from airflow_provider_lakets.login.who.identity import Identity, ServicePrincipal
from airflow_provider_lakets.login.who.other_identities import (
    ENVIRONMENT,
    ConnectionIdentity,
    EnvironmentIdentity,
    workspace_of,
)

# Login types that take precedence over the service principal, as in BaseDatabricksHook.
_PREFERRED_KINDS = {"token", "azure_tenant_id", "use_azure_managed_identity", "use_default_azure_credential"}


def find_identity(databricks_conn_id: str | None, conn_label: str) -> Identity:
    """
    Return the identity of a Databricks connection, or of the environment.

    :param databricks_conn_id: Id of the connection; None for the environment.
    :param conn_label: The Airflow connection that needs an identity, for messages.
    """
    if databricks_conn_id:
        return _from_connection(databricks_conn_id, conn_label)
    env = os.environ
    names = ("DATABRICKS_HOST", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET")
    host, client_id, secret = (env.get(name) for name in names)
    # If other variables are set, too, the SDK decides which of them apply.
    more = (
        env.get("DATABRICKS_TOKEN")
        or env.get("DATABRICKS_CONFIG_PROFILE")
        or env.get("DATABRICKS_AUTH_TYPE", "oauth-m2m") != "oauth-m2m"
    )
    if host and client_id and secret and not more:
        return ServicePrincipal(conn_label, host, client_id, secret, found="environment")
    return EnvironmentIdentity(conn_label)


def find_host(databricks_conn_id: str | None) -> str | None:
    """
    Return the URL of the workspace without authentication; None if no workspace is named.

    :param databricks_conn_id: Id of the Databricks connection; None for the environment.
    """
    try:
        if databricks_conn_id:
            return _host_of(databricks_conn_id)
        host = os.environ.get("DATABRICKS_HOST")
        return workspace_url(without_user(host), "The environment") if host else None
    except LakeTSError:
        return None


# Airflow is imported only to look up a connection. Programs without connections use the identity
# of the environment.


def _host_of(conn_id: str) -> str | None:
    from airflow_provider_lakets.login.who.stored import NOT_DEFINED, stored

    try:
        return workspace_of(stored(conn_id))
    except NOT_DEFINED:
        return None


def _from_connection(conn_id: str, conn_label: str) -> Identity:
    from airflow_provider_lakets.login.who.stored import NOT_DEFINED, stored

    try:
        connection = stored(conn_id)
    except NOT_DEFINED as err:
        raise LakebaseCredentialError(
            f"{conn_label} names the Databricks connection {shown(conn_id)} (databricks_conn_id), which is "
            f"not defined. Define it, or remove databricks_conn_id to use the environment: {ENVIRONMENT}."
        ) from err
    extra = read_extra(connection)
    by_secret = extra.get("service_principal_oauth") and not any(map(extra.get, _PREFERRED_KINDS))
    if by_secret and connection.login and connection.password:
        return ServicePrincipal(
            conn_label,
            workspace_of(connection),
            connection.login,
            connection.password,
            found=f"Databricks connection {shown(conn_id)}",
            proxies=extra.get("proxies"),
        )
    return ConnectionIdentity(conn_label, connection)
