"""One session of the feed: from a connection to the first error."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.feed import catalog
from airflow_provider_lakets.local.feed.catalog import PENDING, SKIPPED, SNAPSHOTTING, STREAMING, Catalog
from airflow_provider_lakets.local.feed.delta import History, history_path
from airflow_provider_lakets.local.feed.first_rows import read_first_rows
from airflow_provider_lakets.local.feed.reader import ChangeReader
from airflow_provider_lakets.local.feed.replication import ReplicationStream
from airflow_provider_lakets.local.feed.shadow import Shadow
from airflow_provider_lakets.local.feed.values import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_lakets.local.feed.catalog import Watched

log = logging.getLogger(__name__)

_WRITE_ATTEMPTS = 4
_WRITER_PATIENCE_SECONDS = 1.0
_RELEASE_SECONDS = 2.0
_NOT_FULL = "its replica identity is not FULL"


def _is_retryable(error: BaseException) -> bool:
    """Return whether to try again; tenacity would also catch errors that must end the process."""
    return isinstance(error, Exception) and not isinstance(error, ConversionError)


def _must_start_again(shadow: Shadow, table: Watched) -> bool:
    if shadow.skipped_for is not None:
        is_full_again = shadow.skipped_for == _NOT_FULL and table.is_full
        return is_full_again or shadow.definition != table.definition
    # It left the publication and became FULL again between two rounds: changes were missed.
    return shadow.first_rows is not None and table.is_full and not table.is_published


class DeliveryError(LakeTSError):
    """A Delta table could not be written; the missing changes will be sent again."""


class Flushed(NamedTuple):
    """How many rows a round wrote to one Delta table."""

    shadow: str
    rows: int


class Follower:
    """
    Follow one database. After an error it is closed, and a new one continues from what is on disk.

    :param conninfo: The connection string of a superuser.
    :param delta_dir: The folder of the Delta tables.
    :param spool: A folder for changes that do not fit into memory.
    """

    def __init__(self, conninfo: str, delta_dir: Path, spool: Path) -> None:
        self.catalog = Catalog(conninfo)
        self._conninfo = conninfo
        self._delta_dir = delta_dir
        self._spool = spool
        self._shadows: dict[int, Shadow] = {}
        self._stream: ReplicationStream | None = None
        self._confirmed = 0
        self._owner = self._slot = ""

    @property
    def is_open(self) -> bool:
        """Return whether this object reads the slot."""
        return self._stream is not None

    def open(self, *, retry_skipped: bool = False) -> None:
        """
        Start reading the slot, which only one process can do, and resume every table.

        :param retry_skipped: Whether to try skipped tables again: the reason may no longer apply.
        """
        self._owner, self._slot = self.catalog.identity()
        self.catalog.ensure_slot(self._slot)
        self._stream = ReplicationStream(self._conninfo, slot=self._slot, publication=catalog.PUBLICATION)
        if retry_skipped:
            self.catalog.forget_skipped()
        self._confirmed = self.catalog.slot_position(self._slot)
        self._reader = ChangeReader(
            self._stream, self.catalog, self._shadows, skip=self._skip, position=self._confirmed
        )
        for synced in self.catalog.synced():
            shadow = self._shadow(synced.oid, synced.shadow)
            if shadow.resume(synced):
                self._shadows[synced.oid] = shadow
            else:
                log.warning("%s starts again with the rows it has", synced.shadow)

    def close(self) -> None:
        """Release the slot and close the session."""
        for shadow in self._shadows.values():
            shadow.discard()
        if self._stream is not None:
            self._stream.close()
            # The server needs a moment to release the slot; until then the database cannot be
            # dropped.
            with contextlib.suppress(psycopg.Error):
                deadline = time.monotonic() + _RELEASE_SECONDS
                while self.catalog.slot_is_active(self._slot) and time.monotonic() < deadline:
                    time.sleep(0.01)
        self.catalog.close()

    def _shadow(self, oid: int, name: str) -> Shadow:
        history = History(history_path(self._delta_dir, name), f"{self._owner}/{oid}")
        return Shadow(oid, name, history, self._spool)

    def round(self, batch_rows: int, is_stopping: Callable[[], bool]) -> list[Flushed]:
        """Write everything committed before the call to Delta, or less if a stop is requested."""
        watched = {table.oid: table for table in self.catalog.watched()}
        names = {oid: table.name for oid, table in watched.items()}
        given_up = {shadow.name for oid, shadow in self._shadows.items() if names.get(oid) != shadow.name}
        replaced = {oid for oid, name in names.items() if name in given_up and oid not in self._shadows}
        flushed = []
        if replaced:
            # The last changes of a table come before the first rows of the one that took its name.
            others = {oid: table for oid, table in watched.items() if oid not in replaced}
            flushed += self._pass(others, batch_rows, is_stopping)
        flushed += self._pass(watched, batch_rows, is_stopping)
        failures = [shadow for shadow in self._shadows.values() if shadow.failure is not None]
        if failures:
            errors = ", ".join(f"{shadow.name}: {shadow.failure}" for shadow in failures)
            raise DeliveryError(f"Not written to Delta, will be retried: {errors}") from failures[0].failure
        return flushed

    def _pass(
        self, watched: dict[int, Watched], batch_rows: int, is_stopping: Callable[[], bool]
    ) -> list[Flushed]:
        flushed = self._begin_tables(watched)
        self._reader.next_xid = self.catalog.next_xid()
        target = self.catalog.flushed_lsn()
        while True:
            is_caught_up = self._reader.read(target, batch_rows)
            flushed += self._flush(is_caught_up=is_caught_up)
            if is_caught_up:
                self._end_tables(watched)
                break
            if is_stopping():
                break
        return flushed

    # Tables come and go

    def _begin_tables(self, watched: dict[int, Watched]) -> list[Flushed]:
        flushed = []
        for table in watched.values():
            shadow = self._shadows.get(table.oid)
            if shadow is None:
                shadow = self._shadows[table.oid] = self._shadow(table.oid, table.name)
            if _must_start_again(shadow, table):
                shadow = self._start_again(shadow, table)
            if table.is_full:
                self._report(shadow)
            if shadow.skipped_for is None and shadow.first_rows is None and table.is_full:
                flushed += self._begin(shadow, table)
            elif shadow.status == STREAMING and shadow.committed_lsn is None:
                shadow.claim = self.catalog.quiet_lsn(table.oid)
                shadow.has_passed_claim = False
        return flushed

    def _start_again(self, shadow: Shadow, table: Watched) -> Shadow:
        self.catalog.forget(shadow.oid, is_gone=False)
        shadow.discard()
        fresh = self._shadows[table.oid] = self._shadow(table.oid, table.name)
        return fresh

    def _begin(self, shadow: Shadow, table: Watched) -> list[Flushed]:
        """Read a table's first rows, unless a writer of it began before it was published."""
        try:
            if not table.is_published:
                self.catalog.publish(table.name)
            if not self._writers_are_gone(shadow):
                return []
            starts_at = max(self._reader.position, shadow.waiting_since)
            count = read_first_rows(self._conninfo, self.catalog, shadow, starts_at=starts_at)
        except ConversionError as err:
            self._skip(shadow, err)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable) as err:
            log.info("%s starts in a later round: %s", table.name, err)
        except Exception as err:
            if self.catalog.is_lost:
                raise
            log.warning("The first rows of %s could not be written to Delta", table.name, exc_info=True)
            shadow.failure = err
        else:
            if count:
                log.info("%s: first %s row(s)", table.name, count)
                return [Flushed(table.name, count)]
        return []

    def _writers_are_gone(self, shadow: Shadow) -> bool:
        """Wait briefly for writers from before the publication; return whether all have ended."""
        deadline = time.monotonic() + _WRITER_PATIENCE_SECONDS
        if shadow.waiting_for is None:
            shadow.waiting_since = self.catalog.flushed_lsn()
            shadow.waiting_for = self.catalog.writers(shadow.oid)
        while shadow.waiting_for:
            shadow.waiting_for &= self.catalog.writers(shadow.oid)
            if not shadow.waiting_for or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        return not shadow.waiting_for

    def _end_tables(self, watched: dict[int, Watched]) -> None:
        """Stop following tables that are gone, renamed or not FULL, after their last changes."""
        for oid, shadow in list(self._shadows.items()):
            table = watched.get(oid)
            if table is None:
                log.info("%s is gone; its history stays", shadow.name)
                self.catalog.unpublish(oid)  # it may have moved to another schema
                self.catalog.forget(oid, is_gone=True)
                del self._shadows[oid]
            elif not table.is_full:
                if shadow.skipped_for is None or table.is_published:
                    self._skip(shadow, ConversionError(_NOT_FULL))
            elif table.name != shadow.name:
                log.info("%s is now %s and starts again under that name", shadow.name, table.name)
                self._start_again(shadow, table)

    def _skip(self, shadow: Shadow, reason: ConversionError) -> None:
        """Skip a table for now; the others continue."""
        log.warning("%s.%s is skipped: %s", catalog.SCHEMA, shadow.name, reason)
        self.catalog.unpublish(shadow.oid)
        shadow.discard()
        shadow.first_rows = None
        shadow.status, shadow.skipped_for = SKIPPED, str(reason)
        definitions = {table.oid: table.definition for table in self.catalog.watched()}
        shadow.definition = definitions.get(shadow.oid)
        self.catalog.save_skipped(
            shadow.oid, shadow=shadow.name, reason=shadow.skipped_for, definition=shadow.definition
        )
        self._report(shadow)

    # Batches

    def _flush(self, *, is_caught_up: bool) -> list[Flushed]:
        flushed = []
        for shadow in self._shadows.values():
            count = self._write(shadow) if shadow.changes.count else 0
            if count:
                flushed.append(Flushed(shadow.name, count))
            if shadow.first_rows is None or shadow.failure is not None:
                continue
            if count and shadow.status == PENDING:
                shadow.status = STREAMING
            if is_caught_up and shadow.status == SNAPSHOTTING:
                shadow.status = STREAMING
            shadow.has_passed_claim |= is_caught_up
            self._report(shadow)
        if all(shadow.failure is None for shadow in self._shadows.values()):
            self._confirm()
        return flushed

    def _write(self, shadow: Shadow) -> int:
        try:
            for attempt in Retrying(
                retry=retry_if_exception(_is_retryable),
                stop=stop_after_attempt(_WRITE_ATTEMPTS),
                wait=wait_exponential(0.1, max=2),
                before_sleep=lambda state: log.warning(
                    "Writing %s again: %s", shadow.name, state.outcome and state.outcome.exception()
                ),
                reraise=True,
            ):
                with attempt:
                    return shadow.write()
        except ConversionError as err:
            self._skip(shadow, err)
        except Exception as err:
            log.warning("%s could not be written", shadow.name, exc_info=True)
            shadow.failure = err
            shadow.discard()
        return 0

    def _report(self, shadow: Shadow) -> None:
        state = shadow.status, shadow.committed_lsn
        if state != shadow.reported or shadow.has_written:
            self.catalog.set_status(shadow.oid, *state, wrote=shadow.has_written)
            shadow.reported, shadow.has_written = state, False

    def _confirm(self) -> None:
        if self._stream is not None and self._reader.position > self._confirmed:
            self._confirmed = self._reader.position
            self._stream.confirm(self._confirmed)
