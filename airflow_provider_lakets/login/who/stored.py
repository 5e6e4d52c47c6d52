"""Read stored Airflow connections; errors do not repeat their contents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
from airflow.sdk import BaseHook

from airflow_provider_lakets.exceptions import LakebaseSettingError
from airflow_provider_lakets.login.gate import shown

if TYPE_CHECKING:
    from airflow.sdk import Connection

# Airflow's errors for an undefined connection. Outside a task, 3.1 cannot ask its API server for
# the connection and raises ImportError.
NOT_DEFINED = (AirflowNotFoundException, ImportError)


def stored(conn_id: str) -> Connection:
    """
    Return a connection that is stored in Airflow.

    :raises LakebaseSettingError: if Airflow cannot read it. Errors of Airflow may repeat its
        contents, so they are not chained.
    """
    kind = ""
    try:
        return BaseHook.get_connection(conn_id)
    except NOT_DEFINED:
        raise
    except Exception as err:
        kind = type(err).__name__
    raise LakebaseSettingError(
        f"The connection {shown(conn_id)} cannot be read ({kind}). Correct it; in a connection string, "
        "percent-encode special characters in a role or a password."
    )
