"""
The change feed: what is committed in ``lakets_cdf`` goes to Delta tables, exactly once.

A round reads the log up to where it ended when the round began, in batches that end with a
transaction. A batch becomes one Delta commit a table, and that commit also holds the position it
reaches: after a crash the slot sends the batch again, and each table skips what its own commits say
is there. Only then is ``committed_lsn`` moved, and only then may the server forget the log.

A history is append-only, and so:

- TRUNCATE leaves no trace in it, but a warning in the log of the feed.
- When a table is dropped its history stays. A table made anew under that name goes on in it, and
  begins with the rows it has, as inserts; so does one that was skipped for a while. ``_sort_by``
  tells where.
- A renamed table begins a history under its new name.
- A column added later is NULL in what came before, though an old row may read otherwise: the images
  of later changes show what the default made of it. A dropped column stays, and is NULL from then
  on.
- A column keeps the Delta type it began with. A value that this cannot hold skips the table, as
  does a replica identity other than FULL; ``wal2delta_local.sync`` tells why. It is tried again
  when its definition changes and when the feed starts.
- Generated columns are left out. Values: see :mod:`airflow_provider_lakets.local.feed.values`.

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


def _may_pass(error: BaseException) -> bool:
    """Tell what is worth another attempt; tenacity would also catch what is to end the process."""
    return isinstance(error, Exception) and not isinstance(error, SlotInUseError)


class Feed:
    """
    The feed of one database. It connects when first used, and again after an error.

    :param conninfo: How to reach the database, as a superuser.
    :param delta_dir: The folder of the Delta tables, one ``lb_<shadow>_history`` each.
    :param interval: Seconds from the end of a round to the next.
    :param batch_rows: A batch ends with the transaction that fills it.
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
        Bring to Delta all that was committed before the call, and say what that was.

        While the feed is paused nothing happens. After an error everything that was read and not
        written is forgotten: the next call reads it again.
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
        """Do a round now and one each interval, whatever fails, until :meth:`stop` is called."""
        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
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
        """Wait for the interval to pass, or for somebody to ask for a round."""
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
        """Disconnect, and return once the server has let go of the slot."""
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
    parser.add_argument("--lock", type=Path, help="a file to hold while running")
    parser.add_argument("--attached", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.umask(0o077)  # every row is in the files that it writes
    with contextlib.ExitStack() as stack:
        if options.lock:
            lock = stack.enter_context(options.lock.open("a+", encoding="utf-8"))
            if not try_lock(lock):
                log.error("Another feed holds %s", options.lock)
                return 1
            lock.truncate(0)
            # Attached, it ends with its owner: nobody should join it once that is gone.
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
