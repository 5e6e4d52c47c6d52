"""The open Postgres sessions of a hook, which its calls reuse, and how they load times."""

from __future__ import annotations

import contextlib
import os
import socket
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.types.datetime import TimestamptzLoader

from airflow_provider_lakets.exceptions import LakeTSError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.abc import AdaptContext, Buffer

CANCEL_TIMEOUT = 5.0  # seconds for the cancel request; a killed task has little time


def hang_up(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """End a session that gets no answer; its statement fails as after a lost connection."""
    with (
        contextlib.suppress(OSError, psycopg.Error),  # it has ended meanwhile
        socket.socket(fileno=os.dup(conn.fileno())) as connection,
    ):
        connection.shutdown(socket.SHUT_RDWR)


class Sessions:
    """
    Lend sessions, each to one borrower at a time, and keep them open inside :meth:`keep`.

    There are no locks, because on_kill runs in a signal handler and may interrupt the thread that
    holds one. The list operations below are atomic.

    :param connect: Opens a new session.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self._connect = connect
        self._idle: list[psycopg.Connection[Any]] = []
        self._keepers = 0
        self._stopped = False

    @contextlib.contextmanager
    def keep(self) -> Iterator[None]:
        """Keep sessions open between borrowers until the outermost block ends."""
        self._keepers += 1
        try:
            yield
        finally:
            self._keepers -= 1
            if not self._keepers:
                self._stopped = False
                while self._idle:
                    self._idle.pop().close()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend an open session; open one if none is free."""
        if self._stopped:
            raise LakeTSError("The task was stopped; no further statement is started.")
        conn = self._idle.pop() if self._idle else self._connect()
        try:
            yield conn
        finally:
            self._give_back(conn)

    def _give_back(self, conn: psycopg.Connection[Any]) -> None:
        status = conn.info.transaction_status
        if status == TransactionStatus.ACTIVE:
            # The borrower was interrupted during a statement, for example by a task timeout: end
            # the statement.
            with contextlib.suppress(psycopg.Error):
                conn.cancel_safe(timeout=CANCEL_TIMEOUT)
        if self._keepers and status == TransactionStatus.IDLE:
            self._idle.append(conn)
        else:
            conn.close()

    def stop(self) -> None:
        """Lend no more sessions until the outermost block has ended."""
        self._stopped = bool(self._keepers)


# A day from the ends, so that they exist in every time zone.
EARLIEST = datetime(1, 1, 2, tzinfo=timezone.utc)
LATEST = datetime(9999, 12, 30, tzinfo=timezone.utc)


class NearestTimeLoader(Loader):
    """
    Load a ``timestamptz`` as the nearest time that Python has.

    One row with a wrong clock moves the watermark of a RollUp there (milliseconds read as seconds
    give the year 55,000), which must not stop the jobs of all others.
    """

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        exact = psycopg.adapters.get_loader(oid, Format.TEXT) or TimestamptzLoader  # in C, if there is one
        self._exact = exact(oid, context)

    def load(self, data: Buffer) -> datetime:
        try:
            at: datetime = self._exact.load(data)
        except psycopg.DataError:
            text = bytes(data)
            return EARLIEST if text.endswith(b"BC") or text == b"-infinity" else LATEST
        return at
