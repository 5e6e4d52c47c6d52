"""Connections as Airflow keeps them: read without repeating what cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
from airflow.sdk import BaseHook

from airflow_provider_lakets.exceptions import LakebaseSettingError
from airflow_provider_lakets.login.gate import shown

if TYPE_CHECKING:
    from airflow.sdk import Connection

# What Airflow raises for a connection that is not defined; 3.1 outside a task lacks the way to ask.
NOT_DEFINED = (AirflowNotFoundException, ImportError)


def stored(conn_id: str) -> Connection:
    """
    Return a connection that Airflow keeps.

    :raises LakebaseSettingError: if Airflow cannot read it. Its own errors repeat what they choked
        on.
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
