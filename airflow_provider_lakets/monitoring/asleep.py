"""Whether an endpoint sleeps, asked without waking it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.exceptions import LakeTSError

if TYPE_CHECKING:
    from airflow_provider_lakets.hooks.lakets import LakeTSHook

# What the workspace says of an endpoint or an instance that the next login would start.
_ASLEEP = {"IDLE", "SUSPENDED", "STOPPED", "INACTIVE"}


def is_asleep(hook: LakeTSHook) -> bool | None:
    """
    Return whether a login would start the endpoint; None if no workspace can be asked.

    :param hook: For the connection. Only the workspace's REST API is asked.
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
