"""Read stored Airflow connections; errors do not repeat their contents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.exceptions import (  # type: ignore[attr-defined]
    AirflowException,
    AirflowNotFoundException,
)
from airflow.sdk import BaseHook

from airflow_provider_lakets.exceptions import LakebaseConnectionError, LakebaseSettingError
from airflow_provider_lakets.login.gate import shown

if TYPE_CHECKING:
    from airflow.sdk import Connection

# Airflow's errors for an undefined connection. Outside a task, 3.1 cannot ask its API server for
# the connection and raises ImportError.
NOT_DEFINED = (AirflowNotFoundException, ImportError)

# Errors of the content of a connection, and of the right to read it. Others come from a server.
_TO_CORRECT = (ValueError, TypeError, LookupError, AirflowException, PermissionError)


def stored(conn_id: str) -> Connection:
    """
    Return a connection that is stored in Airflow.

    Errors of Airflow may repeat its contents, so they are not chained.

    :raises LakebaseSettingError: if Airflow cannot read it.
    :raises LakebaseConnectionError: if the API server or a secrets backend does not answer.
    """
    try:
        try:
            return BaseHook.get_connection(conn_id)
        except NOT_DEFINED:
            if not _is_defined(conn_id):
                raise
            return BaseHook.get_connection(conn_id)
    except NOT_DEFINED:
        raise
    except Exception as err:
        cause = err
    kind = type(cause).__name__
    if isinstance(cause, _TO_CORRECT):
        raise LakebaseSettingError(
            f"The connection {shown(conn_id)} cannot be read ({kind}). Correct it; in a connection string, "
            "percent-encode special characters in a role or a password."
        )
    raise LakebaseConnectionError(
        f"The connection {shown(conn_id)} could not be looked up ({kind}): Airflow's API server or a "
        "secrets backend does not answer."
    )


def _is_defined(conn_id: str) -> bool:
    """
    Return whether a connection that Airflow called undefined is defined now.

    Airflow ignores the errors of its secrets backends and, since 3.2, of its API server. Here they
    are raised.
    """
    try:
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection
        from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded
    except ImportError:
        return False  # these are internals of Airflow
    for backend in ensure_secrets_backend_loaded():
        # The API server is asked below, since its backend ignores errors. Commands of `lakets` read
        # the metadata database if there is one.
        if type(backend).__name__ not in ("ExecutionAPISecretsBackend", "MetastoreBackend"):
            found = backend.get_connection(conn_id=conn_id)
            if found:
                found.get_uri()  # Airflow needs it, too
                return True
    supervisor = getattr(task_runner, "SUPERVISOR_COMMS", None)
    if supervisor is None:
        return False
    answer = supervisor.send(GetConnection(conn_id=conn_id))
    if not isinstance(answer, ErrorResponse):
        return True
    if answer.error != ErrorType.CONNECTION_NOT_FOUND:
        raise AirflowRuntimeError(answer)
    return False
