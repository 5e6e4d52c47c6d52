"""Snapshots of each Lakebase, cached briefly: one reader at a time, and none wakes it unasked."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.exceptions import AirflowException  # type: ignore[attr-defined]

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.monitoring.asleep import is_asleep
from airflow_provider_lakets.monitoring.data import Snapshot, gather
from airflow_provider_lakets.plugin.connections import lakebase_connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.hooks.lakets import LakeTSHook

log = logging.getLogger(__name__)

FRESH_SECONDS = 15.0
AWAKE_SECONDS = 50.0
WAIT_SECONDS = 12.0  # for a look that another request has begun
STATEMENT_TIMEOUT = "5s"
LOCK_TIMEOUT = "500ms"
CONNECT_SECONDS = 3
APPLICATION = "LakeTS page"

T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """
    What is known of one Lakebase.

    :param snapshot: The last look that succeeded, if any.
    :param problem: Why there is no newer one.
    :param asleep: Whether the endpoint sleeps (or None: whether it does cannot be asked).
    """

    snapshot: Snapshot | None = None
    problem: str | None = None
    asleep: bool | None = False
    looked_at: datetime | None = None


class Snapshots:
    """Keeps what was seen, by connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def look(self, conn_id: str, *, wake: bool = False) -> Known:
        """
        Return what is known of a Lakebase, looking again where that is some seconds old.

        :param conn_id: The connection; the caller has checked that it may be shown.
        :param wake: Whether somebody asked to look even if that wakes a sleeping endpoint.
        """
        with self._lock:
            entry = self._entries.setdefault(conn_id, _Entry())
        if entry.is_fresh(wake=wake):
            return entry.known
        tries = entry.tries
        # While one looks, others wait; if they have waited for long, what was known before must do.
        if not entry.looking.acquire(timeout=0 if entry.known.snapshot else WAIT_SECONDS):
            return entry.known
        try:
            # Whoever waited for a look that went as far as to log in has the answer to it.
            if entry.tries == tries and not entry.is_fresh(wake=wake):
                entry.learn(_look(conn_id, entry.known, wake=wake))
        finally:
            entry.looking.release()
        return entry.known

    def ask(self, conn_id: str, question: Callable[[LakeTSHook], T], *, wake: bool = False) -> T | None:
        """
        Ask something more of a Lakebase that was just looked at; None if it cannot be asked now.

        :param conn_id: The connection.
        :param question: What to ask.
        :param wake: As in :meth:`look`.
        """
        known = self.look(conn_id, wake=wake)
        if known.problem or not (wake or known.asleep is False or _is_surely_awake(known)):
            return None
        try:
            return question(open_hook(conn_id))
        except (LakeTSError, AirflowException) as err:
            log.info("The LakeTS page could not ask %r: %s", conn_id, err)
            return None


class _Entry:
    def __init__(self) -> None:
        self.looking = threading.Lock()
        self.known = Known()
        self.until = 0.0
        self.tries = 0  # how many looks logged in, or failed

    def learn(self, known: Known) -> None:
        self.tries += known.problem is not None or known.snapshot is not self.known.snapshot
        self.known = known
        self.until = time.monotonic() + FRESH_SECONDS

    def is_fresh(self, *, wake: bool) -> bool:
        asked_in_vain = wake and (self.known.snapshot is None or self.known.asleep is not False)
        return time.monotonic() < self.until and not asked_in_vain


def _look(conn_id: str, before: Known, *, wake: bool) -> Known:
    now = datetime.now(timezone.utc)
    try:
        hook = open_hook(conn_id)
        asleep = is_asleep(hook)
        if asleep is not False and not wake and not (asleep is None and _is_surely_awake(before)):
            return replace(before, asleep=asleep, problem=None, looked_at=now)
        return Known(gather(hook, before.snapshot), None, False if asleep is not None else None, now)
    except (LakeTSError, AirflowException) as err:
        return replace(before, asleep=False, problem=str(err), looked_at=now)


def _is_surely_awake(known: Known) -> bool:
    """Return whether a session of ours ended so recently that the endpoint cannot sleep yet."""
    return (
        known.asleep is None
        and known.snapshot is not None
        and (datetime.now(timezone.utc) - known.snapshot.at).total_seconds() < AWAKE_SECONDS
    )


def open_hook(conn_id: str) -> LakeTSHook:
    """Return a hook that gives up soon."""
    return _impatient()(
        conn_id,
        connection=lakebase_connection(conn_id),
        statement_timeout=STATEMENT_TIMEOUT,
        lock_timeout=LOCK_TIMEOUT,
        application_name=APPLICATION,
        tries=1,
    )


def warm_up() -> None:
    """Import in the background what a login needs: the first page is not to wait seconds for it."""
    threading.Thread(target=_import, name="lakets-page", daemon=True).start()


def _import() -> None:
    import_module("databricks.sdk.core")
    _impatient()


@cache
def _impatient() -> type[LakeTSHook]:
    # Here: the API server imports this module at its start, and is not to wait for the hook.
    from airflow_provider_lakets.hooks.lakets import LakeTSHook

    class ImpatientHook(LakeTSHook):
        """Logs in once, and does not wait for an endpoint that wakes up."""

        def _open(self, connect: Any, more: Any = None, **options: Any) -> Any:
            more = {"connect_timeout": CONNECT_SECONDS, **(more or {})}
            connection = self._open_once(connect, more, options)
            self._opened.add(connection)
            return connection

    return ImpatientHook
