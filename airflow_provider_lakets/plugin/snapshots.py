"""Cache snapshots of each Lakebase, and do not resume a suspended endpoint without a request."""

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
WAIT_SECONDS = 12.0  # for a snapshot that another request is reading
STATEMENT_TIMEOUT = "5s"
LOCK_TIMEOUT = "500ms"
CONNECT_SECONDS = 3
APPLICATION = "LakeTS page"

T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """
    The cached state of one Lakebase.

    :param snapshot: The last snapshot, if any.
    :param problem: Why there is no newer snapshot.
    :param asleep: Whether the endpoint is suspended; None if there is no workspace to ask.
    """

    snapshot: Snapshot | None = None
    problem: str | None = None
    asleep: bool | None = False
    looked_at: datetime | None = None


class Snapshots:
    """A cache of snapshots, by connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def look(self, conn_id: str, *, wake: bool = False) -> Known:
        """
        Return the state of a Lakebase; read it again if it is some seconds old.

        :param conn_id: The connection; the caller has checked that it may be shown.
        :param wake: Whether the user asked to read it even if that resumes a suspended endpoint.
        """
        with self._lock:
            entry = self._entries.setdefault(conn_id, _Entry())
        if entry.is_fresh(wake=wake):
            return entry.known
        tries = entry.tries
        # One request reads. Others return the old snapshot, or wait a limited time without one.
        if not entry.looking.acquire(timeout=0 if entry.known.snapshot else WAIT_SECONDS):
            return entry.known
        try:
            # Do not read again if, meanwhile, another request logged in or failed.
            if entry.tries == tries and not entry.is_fresh(wake=wake):
                entry.learn(_look(conn_id, entry.known, wake=wake))
        finally:
            entry.looking.release()
        return entry.known

    def ask(self, conn_id: str, question: Callable[[LakeTSHook], T], *, wake: bool = False) -> T | None:
        """
        Run another query on a Lakebase; None if it cannot be read now.

        :param conn_id: The connection.
        :param question: The query.
        :param wake: As in :meth:`look`.
        """
        known = self.look(conn_id, wake=wake)
        if known.problem or not (wake or known.asleep is False or _is_surely_awake(known)):
            return None
        try:
            return question(open_hook(conn_id))
        except (LakeTSError, AirflowException) as err:
            log.info("The LakeTS page could not query %r: %s", conn_id, err)
            return None


class _Entry:
    def __init__(self) -> None:
        self.looking = threading.Lock()
        self.known = Known()
        self.until = 0.0
        self.tries = 0  # how many reads logged in or failed

    def learn(self, known: Known) -> None:
        self.tries += known.problem is not None or known.snapshot is not self.known.snapshot
        self.known = known
        self.until = time.monotonic() + FRESH_SECONDS

    def is_fresh(self, *, wake: bool) -> bool:
        is_waking = wake and (self.known.snapshot is None or self.known.asleep is not False)
        return time.monotonic() < self.until and not is_waking


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
    """Return whether the page read it so recently that the endpoint cannot be suspended yet."""
    return (
        known.asleep is None
        and known.snapshot is not None
        and (datetime.now(timezone.utc) - known.snapshot.at).total_seconds() < AWAKE_SECONDS
    )


def open_hook(conn_id: str) -> LakeTSHook:
    """Return a hook with short timeouts and without retries."""
    return _hook_class()(
        conn_id,
        connection=lakebase_connection(conn_id),
        statement_timeout=STATEMENT_TIMEOUT,
        lock_timeout=LOCK_TIMEOUT,
        application_name=APPLICATION,
        tries=1,
    )


def warm_up() -> None:
    """Import what a login needs in the background, because it takes seconds."""
    threading.Thread(target=_import, name="lakets-page", daemon=True).start()


def _import() -> None:
    import_module("databricks.sdk.core")
    _hook_class()


@cache
def _hook_class() -> type[LakeTSHook]:
    # Imported here, because it would delay the start of the API server.
    from airflow_provider_lakets.hooks.lakets import LakeTSHook

    class PageHook(LakeTSHook):
        """Log in without retries, and do not wait for an endpoint that resumes."""

        def _open(self, connect: Any, more: Any = None, **options: Any) -> Any:
            more = {"connect_timeout": CONNECT_SECONDS, **(more or {})}
            connection = self._open_once(connect, more, options)
            self._opened.add(connection)
            return connection

    return PageHook
