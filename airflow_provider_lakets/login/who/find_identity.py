"""Which identity: that of a Databricks connection, or else the environment's."""

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

# Login kinds that a Databricks connection prefers to its service principal, see BaseDatabricksHook.
_PREFERRED_KINDS = {"token", "azure_tenant_id", "use_azure_managed_identity", "use_default_azure_credential"}


def find_identity(databricks_conn_id: str | None, conn_label: str) -> Identity:
    """
    Return the identity of a Databricks connection, or else the environment's.

    :param databricks_conn_id: Id of the connection; None for the environment.
    :param conn_label: The Airflow connection that needs an identity, for messages.
    """
    if databricks_conn_id:
        return _from_connection(databricks_conn_id, conn_label)
    env = os.environ
    names = ("DATABRICKS_HOST", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET")
    host, client_id, secret = (env.get(name) for name in names)
    # Where more is set than these, which of it counts is the SDK's to say.
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
    Return the workspace's address without authentication; None if none is named.

    :param databricks_conn_id: Id of the Databricks connection; None for the environment.
    """
    try:
        if databricks_conn_id:
            return _host_of(databricks_conn_id)
        host = os.environ.get("DATABRICKS_HOST")
        return workspace_url(without_user(host), "The environment") if host else None
    except LakeTSError:
        return None


# Airflow is imported only to look a connection up: programs without any use the environment's
# identity.


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
            f"not defined. Define it, or take databricks_conn_id out to use the environment: {ENVIRONMENT}."
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
