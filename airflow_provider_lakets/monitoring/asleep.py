"""Check whether an endpoint is suspended, without resuming it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.exceptions import LakeTSError

if TYPE_CHECKING:
    from airflow_provider_lakets.hooks.lakets import LakeTSHook

# The states in which the next login would start an endpoint or an instance.
_ASLEEP = {"IDLE", "SUSPENDED", "STOPPED", "INACTIVE"}


def is_asleep(hook: LakeTSHook) -> bool | None:
    """
    Return whether a login would start the endpoint; None if there is no workspace to ask.

    :param hook: The hook of the connection. Only the REST API of the workspace is used.
    """
    try:
        endpoint = hook.login.endpoint
    except LakeTSError:
        if hook.login.is_native:
            return None  # a native password needs no workspace
        raise
    kind = "database/instances" if endpoint.is_instance else "postgres"
    path = f"{kind}/{endpoint.name}"
    with hook.login.workspace.explain_errors(f"the state of {endpoint.name!r}"):
        answer = hook.login.workspace.get(path)
    state = answer.text("state") if endpoint.is_instance else answer.text("status", "current_state")
    return str(state or "").upper() in _ASLEEP
