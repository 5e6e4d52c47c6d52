"""
The change feed: it writes what is committed in ``lakets_cdf`` to Delta tables, exactly once.

A round reads the WAL up to its end at the start of the round, in batches of whole transactions. A
batch becomes one Delta commit per table, which also stores the position that it reaches. After a
crash the slot sends the batch again, and each table skips the changes that its commits contain.
Only after the commits does ``committed_lsn`` advance, and only then may the server remove the WAL.

A history is append-only. Therefore:

- TRUNCATE leaves no trace in it; the log of the feed has a warning.
- The history of a dropped table stays. A new table with that name continues it, beginning with its
  existing rows as inserts; so does a table that was skipped for a while. ``_sort_by`` shows where.
- A renamed table begins a history under its new name.
- A column added later is NULL in earlier entries, even if its default gave old rows a value: the
  images of later changes show that value. A dropped column stays, and is NULL from then on.
- A column keeps its first Delta type. A table with a value that does not fit is skipped, and so is
  a table whose replica identity is not FULL; ``wal2delta_local.sync`` says why. It is tried again
  when its definition changes and when the feed starts.
- Generated columns are left out. For values see :mod:`airflow_provider_lakets.local.feed.values`.

Run as a program: ``python -m airflow_provider_lakets.local.feed.feed CONNINFO DELTA_DIR``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception,
    sleep_using_event,
    stop_when_event_set,
    wait_exponential,
)

from airflow_provider_lakets.local.feed.control import DEFAULT_INTERVAL
from airflow_provider_lakets.local.feed.follower import DeliveryError, Flushed, Follower
from airflow_provider_lakets.local.feed.replication import SlotInUseError
from airflow_provider_lakets.local.processes import at_end_of_input, try_lock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["DeliveryError", "Feed", "Flushed"]

log = logging.getLogger(__name__)

BATCH_ROWS = 200_000
_STOP_CHECK_SECONDS = 0.5


def _is_retryable(error: BaseException) -> bool:
    """Return whether to try again; tenacity would also catch errors that must end the process."""
    return isinstance(error, Exception) and not isinstance(error, SlotInUseError)


class Feed:
    """
    The feed of one database. It connects when first used, and again after an error.

    :param conninfo: The connection string of a superuser.
    :param delta_dir: The folder of the Delta tables, one ``lb_<shadow>_history`` each.
    :param interval: Seconds from the end of a round to the next.
    :param batch_rows: A batch ends with the transaction that reaches this number of rows.
    """

    def __init__(
        self,
        conninfo: str,
        delta_dir: Path,
        *,
        interval: float = DEFAULT_INTERVAL,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self.conninfo = conninfo
        self.delta_dir = delta_dir
        self.interval = interval
        self.batch_rows = batch_rows
        self.spool = Path(tempfile.gettempdir())
        self._follower: Follower | None = None
        self._stop = threading.Event()
        self._is_new = True

    def run_once(self) -> list[Flushed]:
        """
        Write everything committed before the call to Delta, and return what was written.

        A paused feed does nothing. After an error, the next call reads again what was read but not
        written.
        """
        try:
            follower = self._follower
            if follower is None:
                self.delta_dir.mkdir(parents=True, exist_ok=True)
                follower = self._follower = Follower(self.conninfo, self.delta_dir, self.spool)
                follower.catalog.install()
            with follower.catalog.round() as is_running:
                if not is_running:
                    return []
                if not follower.is_open:
                    follower.open(retry_skipped=self._is_new)
                    self._is_new = False
                return follower.round(self.batch_rows, self._stop.is_set)
        except BaseException:
            self.close()
            raise

    def run(self) -> None:
        """Run a round now and after each interval until :meth:`stop`; retry after errors."""
        retrying = Retrying(
            retry=retry_if_exception(_is_retryable),
            wait=wait_exponential(0.5, max=30),
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            before_sleep=before_sleep_log(log, logging.WARNING),
            retry_error_callback=lambda state: None,
        )
        while not self._stop.is_set():
            flushed = retrying(self.run_once) or []
            for done in flushed:
                log.info("%s: %s row(s) flushed", done.shadow, done.rows)
            self._sleep()
        self.close()

    def _sleep(self) -> None:
        """Wait for the interval to pass, or for a request for a round."""
        deadline = time.monotonic() + self.interval
        while not self._stop.is_set() and (left := deadline - time.monotonic()) > 0:
            pause = min(left, _STOP_CHECK_SECONDS)
            try:
                if self._follower is None:
                    self._stop.wait(pause)
                elif self._follower.catalog.wait(pause):
                    return
            except psycopg.Error:
                log.warning("The connection of the feed was lost", exc_info=True)
                self.close()

    def stop(self) -> None:
        """Make :meth:`run` return after this batch; for signal handlers and other threads."""
        self._stop.set()

    def close(self) -> None:
        """Disconnect, and return once the server has released the slot."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.close()

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the feed until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_lakets.local.feed.feed", description=main.__doc__
    )
    parser.add_argument("conninfo", help="the database, as a superuser")
    parser.add_argument("delta_dir", type=Path, help="the folder of the Delta tables")
    parser.add_argument("--interval", type=float, default=DEFAULT_INTERVAL, help="seconds between two rounds")
    parser.add_argument("--lock", type=Path, help="a file to lock while running")
    parser.add_argument("--attached", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.umask(0o077)  # the files that it writes contain all rows
    with contextlib.ExitStack() as stack:
        if options.lock:
            lock = stack.enter_context(options.lock.open("a+", encoding="utf-8"))
            if not try_lock(lock):
                log.error("Another feed has locked %s", options.lock)
                return 1
            lock.truncate(0)
            # An attached feed ends with its owner; nobody should use it after that.
            lock.write(json.dumps({"pid": os.getpid(), "owner": os.getppid() if options.attached else None}))
            lock.flush()
        feed = stack.enter_context(Feed(options.conninfo, options.delta_dir, interval=options.interval))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: feed.stop())
        if options.attached:
            at_end_of_input(feed.stop)
        try:
            feed.run()
        except SlotInUseError as err:
            log.error("%s", err)  # noqa: TRY400 - the trace says nothing more
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
