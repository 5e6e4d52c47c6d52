"""The feed as a separate process, which other processes find by its folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.feed import control
from airflow_provider_lakets.local.processes import end_process, open_log, try_lock

if TYPE_CHECKING:
    from pathlib import Path

_START_SECONDS = 60.0
_STOP_SECONDS = 2.0  # then it is killed, which loses nothing
_END_SECONDS = 20.0
_LOG_TAIL_LINES = 20


class FeedStartError(LakeTSError):
    """The change feed ended, or was not ready in time."""


class FeedProcess:
    """
    Start and stop the feed of one folder.

    A feed locks ``feed.lock`` while it runs, so there is at most one. Its log is ``feed.log``.

    :param folder: The folder of these files.
    """

    def __init__(self, folder: Path) -> None:
        self.log_file = folder / "feed.log"
        self._lock_file = folder / "feed.lock"
        self._process: subprocess.Popen[bytes] | None = None
        self._is_given_up = threading.Event()

    @property
    def is_ours(self) -> bool:
        """Return whether this object started the feed."""
        return self._process is not None

    def pid(self) -> int | None:
        """Return the process id of the feed, whoever started it; None if no feed runs."""
        return self._holder().get("pid")

    def _holder(self) -> dict[str, int]:
        """Read the lock file while a process holds it: the content of a dead process is ignored."""
        if not self._lock_file.exists():
            return {}
        with self._lock_file.open(encoding="utf-8") as lock:
            if not try_lock(lock, shared=True):
                return dict(json.loads(lock.read() or "{}"))
        return {}

    def wait_for_orphan(self) -> None:
        """Wait for the end of a feed whose owner was killed; kill it if it takes too long."""
        deadline = time.monotonic() + _STOP_SECONDS
        while (owner := self._holder().get("owner")) and not psutil.pid_exists(owner):
            if time.monotonic() > deadline:
                self.end(signal.SIGKILL)
            time.sleep(0.02)

    def start(self, conninfo: str, delta_dir: Path, *, interval: float, attached: bool) -> None:
        """
        Start the feed, and return once it follows the database.

        :param attached: Whether the feed ends with this process, even if the process is killed.
        """
        self._forget()
        self._wait(conninfo, is_running=False)  # a killed feed releases its slot a moment later
        command = [sys.executable, "-m", "airflow_provider_lakets.local.feed.feed", conninfo, str(delta_dir)]
        command += ["--interval", str(interval), "--lock", str(self._lock_file)]
        if attached:
            command.append("--attached")
        with open_log(self.log_file) as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if attached else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C must not reach the feed
            )
        self._wait(conninfo, is_running=True)

    def _wait(self, conninfo: str, *, is_running: bool) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while control.feed_is_running(conninfo) != is_running:
            self.check()
            if time.monotonic() > deadline:
                asked = "has not begun to follow" if is_running else "still follows"
                raise FeedStartError(
                    self._with_log(f"After {_START_SECONDS:g} s the feed {asked} the database")
                )
            time.sleep(0.05)

    def give_up(self) -> None:
        """Make another thread that waits in :meth:`start` raise an error."""
        self._is_given_up.set()

    def check(self) -> None:
        """Raise :class:`FeedStartError`, with the end of its log, when our feed has ended."""
        if self._is_given_up.is_set():
            raise FeedStartError("The start of the feed was given up, because the local Lakebase stops.")
        if self._process is not None and self._process.poll() is not None:
            raise FeedStartError(self._with_log(f"The feed ended with code {self._process.returncode}"))

    def _with_log(self, message: str) -> str:
        text = self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""
        lines = text.splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join([f"{message}; the end of {self.log_file}:", *lines])

    def stop(self) -> None:
        """Let the feed finish its batch and stop; kill it after a timeout, which loses nothing."""
        self.end(signal.SIGTERM, _STOP_SECONDS)
        self.end(signal.SIGKILL, _END_SECONDS)

    def end(self, number: signal.Signals, seconds: float = _END_SECONDS) -> None:
        """Send the feed a signal, and wait at most that many seconds for its end."""
        process = self._process
        if process is None:
            end_process(self.pid() or 0, [(number, seconds)])
        else:
            end_process(process.pid, [(number, seconds)], lambda: process.poll() is not None)
            self._forget()

    def leave(self) -> None:
        """Leave the feed running; it then no longer belongs to this object."""
        if self._process is not None and self._process.stdin is None:
            self._process.returncode = 0  # else Python warns that nobody waited for it
            self._process = None

    def _forget(self) -> None:
        """Forget our process if it has ended."""
        if self._process is not None and self._process.poll() is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None
