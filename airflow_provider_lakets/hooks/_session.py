"""The open Postgres sessions of one hook, reused by call after call."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus

from airflow_provider_lakets.exceptions import LakeTSError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

CANCEL_TIMEOUT = 5.0  # seconds for the cancel request; a task being killed has little time


class Sessions:
    """
    Lend sessions, one borrower at a time each, and keep them while somebody says so.

    No locks: on_kill runs in a signal handler, which may interrupt the very thread that would hold one.
    The list and set operations below are atomic by themselves.

    :param connect: Opens a new session.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self._connect = connect
        self._idle: list[psycopg.Connection[Any]] = []
        self._busy: set[psycopg.Connection[Any]] = set()
        self._keepers = 0
        self._cancelled = False

    @contextlib.contextmanager
    def keep(self) -> Iterator[None]:
        """Keep sessions open from one borrower to the next, until the outermost block ends."""
        self._keepers += 1
        try:
            yield
        finally:
            self._keepers -= 1
            if not self._keepers:
                self._cancelled = False
                while self._idle:
                    self._idle.pop().close()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend an open session; opens one when none is free."""
        if self._cancelled:
            raise LakeTSError("The task was stopped; no further statement is started.")
        conn = self._idle.pop() if self._idle else self._connect()
        self._busy.add(conn)
        try:
            yield conn
        finally:
            self._busy.discard(conn)
            self._give_back(conn)

    def _give_back(self, conn: psycopg.Connection[Any]) -> None:
        status = conn.info.transaction_status
        if status == TransactionStatus.ACTIVE:
            # The borrower was torn out of its statement, by a task timeout say: it must not run on.
            _cancel(conn)
        if self._keepers and status == TransactionStatus.IDLE:
            self._idle.append(conn)
        else:
            conn.close()

    def cancel(self) -> None:
        """Cancel what is running, and start nothing new until the outermost block has ended."""
        self._cancelled = bool(self._keepers)
        for conn in list(self._busy):
            _cancel(conn)


def _cancel(conn: psycopg.Connection[Any]) -> None:
    """Ask the server to stop the statement; a session that is gone needs no asking."""
    try:
        conn.cancel_safe(timeout=CANCEL_TIMEOUT)
    except psycopg.Error as err:
        log.warning("Could not cancel the running statement: %s", err)
