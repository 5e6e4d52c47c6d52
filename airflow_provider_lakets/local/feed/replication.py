"""Read a logical replication slot over libpq's own replication protocol."""

from __future__ import annotations

import select
import struct
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.feed.pgoutput import EPOCH_OFFSET_US

if TYPE_CHECKING:
    from collections.abc import Iterator

# Values arrive as text, so every setting that affects it is fixed. wal_sender_timeout is off: a
# write may take longer, and the server notices a dead feed by its closed socket.
TEXT_SETTINGS = {
    "client_encoding": "UTF8",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}
_SETTINGS = {**TEXT_SETTINGS, "wal_sender_timeout": "0"}

_WAL_DATA, _KEEPALIVE = b"w"[0], b"k"[0]
_WAL_DATA_HEADER = 25
_STATUS = struct.Struct("!cQQQqB")
_IDLE_SECONDS = 0.01
_PATIENCE_SECONDS = 5.0  # for a slot that a killed feed has not released yet


class SlotInUseError(LakeTSError):
    """Another process reads this replication slot: only one feed can serve a database."""


class ReplicationStream:
    """
    The changes of one slot, from its confirmed position on.

    :param conninfo: The connection string of a role that may replicate.
    :param slot: The logical replication slot, created for ``pgoutput``.
    :param publication: The publication with the tables.
    """

    def __init__(self, conninfo: str, *, slot: str, publication: str) -> None:
        self.slot = slot
        self.received = 0  # all transactions that ended before this position have been read
        options = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
        dsn = make_conninfo(conninfo, replication="database", application_name="lakets-feed", options=options)
        self._conn = pq.PGconn.connect(dsn.encode())
        if self._conn.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError(self._conn.get_error_message())
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(SlotInUseError),
                stop=stop_after_delay(_PATIENCE_SECONDS),
                wait=wait_fixed(0.05),
                reraise=True,
            ):
                with attempt:
                    self._start(publication)
        except BaseException:
            self._conn.finish()
            raise

    def _start(self, publication: str) -> None:
        command = (
            f'START_REPLICATION SLOT "{self.slot}" LOGICAL 0/0 '
            f"(proto_version '1', publication_names '{publication}')"
        )
        result = self._conn.exec_(command.encode())
        if result.status == pq.ExecStatus.COPY_BOTH:
            return
        message = result.get_error_message()
        if result.error_field(pq.DiagnosticField.SQLSTATE) == b"55006":  # object_in_use
            raise SlotInUseError(f"Another feed already reads this database: {message}. Stop it first.")
        raise psycopg.OperationalError(message)

    def read(self, target: int) -> Iterator[bytes]:
        """
        Yield pgoutput messages of all transactions that ended at or before ``target``.

        The caller may stop early and call it again: nothing is skipped.
        """
        if self.received >= target:
            return
        self._send_status(0, reply=True)
        while True:
            size, data = self._conn.get_copy_data(1)
            if size == 0:
                # Caught up, or the server is still reading the WAL: ask for its position.
                if not self._wait():
                    self._send_status(0, reply=True)
            elif size < 0 or data is None:
                raise psycopg.OperationalError(
                    f"The server ended replication from slot {self.slot}: {self._conn.get_error_message()}"
                )
            elif data[0] == _WAL_DATA:
                yield bytes(data[_WAL_DATA_HEADER:])
            elif data[0] == _KEEPALIVE:
                # The position advances only after a whole transaction has been sent.
                (self.received,) = struct.unpack_from("!Q", data, 1)
                if self.received >= target:
                    return

    def _wait(self) -> bool:
        readable, _, _ = select.select([self._conn.socket], [], [], _IDLE_SECONDS)
        if readable:
            self._conn.consume_input()
        return bool(readable)

    def confirm(self, lsn: int) -> None:
        """Let the server remove the WAL of everything that ended at or before this position."""
        self._send_status(lsn, reply=False)

    def _send_status(self, flushed: int, *, reply: bool) -> None:
        # Zero changes nothing: the server never moves the slot back.
        now = time.time_ns() // 1000 - EPOCH_OFFSET_US
        self._conn.put_copy_data(_STATUS.pack(b"r", flushed, flushed, flushed, now, reply))
        self._conn.flush()

    def close(self) -> None:
        """Close the connection; the server frees the slot a moment later."""
        self._conn.finish()
