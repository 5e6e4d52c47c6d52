"""Connections as Airflow keeps them: read without repeating what cannot be read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
from airflow.sdk import BaseHook

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakebaseSettingError
from airflow_provider_lakets.login.address import workspace_url
from airflow_provider_lakets.login.fields import read_extra
from airflow_provider_lakets.login.gate import shown

if TYPE_CHECKING:
    from airflow.sdk import Connection

# What Airflow raises for a connection that is not defined; 3.1 outside a task lacks the way to ask.
NOT_DEFINED = (AirflowNotFoundException, ImportError)


def stored(conn_id: str) -> Connection:
    """
    Return a connection that Airflow keeps.

    :raises LakebaseSettingError: if Airflow cannot read it. Its own errors repeat what they choked on.
    """
    kind = ""
    try:
        return BaseHook.get_connection(conn_id)
    except NOT_DEFINED:
        raise
    except Exception as err:
        kind = type(err).__name__
    raise LakebaseSettingError(
        f"The connection {shown(conn_id)} cannot be read ({kind}). Correct it; in a connection string, what "
        "is special in a role or a password is percent-encoded."
    )


def workspace_of(connection: Connection) -> str:
    """Return the address in a Databricks connection, where scheme and port may be fields of their own."""
    asker = f"Databricks connection {shown(connection.conn_id)}"
    host = str(read_extra(connection).get("host") or connection.host or "").strip()
    if not host:
        raise LakebaseCredentialError(f"{asker} has no host: set the workspace's address.")
    if "://" not in host:
        host = f"{connection.schema if connection.schema in ('http', 'https') else 'https'}://{host}"
    url = workspace_url(host, asker)
    has_port = re.search(r":\d+$", url)
    return f"{url}:{connection.port}" if connection.port and not has_port else url
