"""Access to the page: a right for the page, the right to read a connection's DAGs, and headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, ConnectionDetails
from airflow.api_fastapi.core_api.security import get_user, requires_access_view
from fastapi import Depends, HTTPException

from airflow_provider_lakets.plugin.connections import Uses, environment_default, named_in_configuration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}

MAY_SEE_PLUGINS = Depends(requires_access_view(AccessView.PLUGINS))

_USER = Depends(get_user)
_uses = Uses()


def dags_by_connection(user: Any = _USER) -> dict[str, list[str]]:
    """
    Return the connections that a user may see, each with the DAGs that use it.

    The page shows the whole database, so the user must be allowed to read every DAG that uses the
    connection. Without such a DAG, the user must be allowed to read the connection itself.
    """
    manager = get_auth_manager()
    used = _uses.by_connection()
    readable = manager.get_authorized_dag_ids(user=user) if used else set()
    allowed = {conn_id: sorted(dags) for conn_id, dags in used.items() if dags <= readable}
    for conn_id in {*named_in_configuration(), *environment_default()} - {*used}:
        if manager.is_authorized_connection(
            method="GET", details=ConnectionDetails(conn_id=conn_id), user=user
        ):
            allowed[conn_id] = []
    return dict(sorted(allowed.items()))


def chosen(allowed: Mapping[str, list[str]], conn_id: str | None) -> str | None:
    """
    Return the connection to show: the one asked for, or the first.

    :raises HTTPException: if it does not exist or the user may not see it; the error does not say
        which.
    """
    if conn_id is None:
        return next(iter(allowed), None)
    if conn_id not in allowed:
        raise HTTPException(404, "There is no such Lakebase connection, or you may not read its DAGs.")
    return conn_id


class SafeHeaders:
    """Add the headers that forbid framing, caching and foreign code to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                names = {name for name, _ in ours}
                message["headers"] = [pair for pair in message["headers"] if pair[0] not in names] + ours
            await send(message)

        await self._app(scope, receive, with_headers)
