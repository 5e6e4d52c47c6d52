"""The routes that cause faults in a local Lakebase; a real Lakebase does not have them."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import psycopg
from fastapi import APIRouter, Depends, Request

from airflow_provider_lakets.local.api.faults import MOMENTARY, Fault, FaultName, Faults
from airflow_provider_lakets.local.api.requests import ApiError, body_of, number

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.api.feeds import FedDatabase, LocalFeeds

_END_SESSIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND usename <> 'postgres' AND pid <> pg_backend_pid()
"""


def admin_routes(
    token: str, faults: Faults, feeds: LocalFeeds, lakebase: FedDatabase, *, cut: Callable[[], int]
) -> APIRouter:
    """
    Return the routes; each requires the admin token of the folder's state file.

    :param cut: Cuts the connections of all sessions, and returns their number.
    """

    def check(request: Request) -> None:
        if not secrets.compare_digest(request.headers.get("x-lakets-admin", "").encode(), token.encode()):
            raise ApiError(
                403, "PERMISSION_DENIED", "The admin token is in lakebase.json of the Lakebase's folder."
            )

    router = APIRouter(prefix="/local", dependencies=[Depends(check)])

    @router.get("/faults")
    def active() -> dict[str, Any]:
        return {
            name.value: {"times": fault.times, "seconds": fault.seconds}
            for name, fault in faults.active.items()
        }

    @router.post("/faults/{name}")
    async def cause(name: FaultName, request: Request) -> dict[str, Any]:
        asked = await body_of(request)
        times = number(asked, "times")
        fault = Fault(
            times=None if times is None else int(times), seconds=number(asked, "seconds") or Fault.seconds
        )
        if name is FaultName.CUT:
            return {"sessions": cut()}
        if name is FaultName.SHUTDOWN:
            return {"sessions": await asyncio.to_thread(_end_sessions, lakebase)}
        await asyncio.to_thread(feeds.cause, name, fault.seconds)
        faults.active[name] = fault
        return {}

    @router.delete("/faults")
    async def clear() -> dict[str, Any]:
        cleared = list(faults.active)
        faults.active.clear()
        for name in cleared:
            await asyncio.to_thread(feeds.clear, name)
        return {"cleared": [name.value for name in cleared]}

    assert {FaultName.CUT, FaultName.SHUTDOWN} == MOMENTARY  # noqa: S101 - the two handled above
    return router


def _end_sessions(lakebase: FedDatabase) -> int:
    with psycopg.connect(lakebase.conninfo(), autocommit=True) as conn:
        row = conn.execute(_END_SESSIONS).fetchone()
    return int(row[0]) if row else 0
