"""Coordinate processes by locked files, and stop processes within a time limit."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import threading
import time
from functools import partial
from typing import IO, TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import TracebackType


# Creates files that only their owner may read.
_private = partial(os.open, mode=0o600)


class FileLock:
    """
    Exclude other processes and other threads of this process; the second one waits.

    :param path: The file to lock; created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._here = threading.Lock()
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        self._here.acquire()
        with contextlib.suppress(FileNotFoundError):  # without its folder there is nothing to protect
            self._file = open(self._path, "a", opener=_private)
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._here.release()


def try_lock(file: IO[str], *, shared: bool = False) -> bool:
    """
    Lock an open file until it is closed; return False if another process has locked it.

    :param file: The file.
    :param shared: Whether to take a shared lock, which is enough to test for an exclusive one.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_log(path: Path) -> IO[bytes]:
    """Open a log to append to; only the owner may read a new one."""
    return open(path, "ab", opener=_private)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not count."""
    try:
        return bool(pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end_process(
    pid: int, ways: Iterable[tuple[int, float]], is_over: Callable[[], bool] | None = None
) -> None:
    """
    Send signals to a process, one after another, until it has ended.

    :param pid: The process; 0 for none.
    :param ways: The signals, each with the time in seconds to wait for its effect.
    :param is_over: Returns whether the process has ended; by default, its id is looked up.
    """
    is_over = is_over or (lambda: not is_alive(pid))
    for number, seconds in ways:
        if is_over():
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while not is_over() and time.monotonic() < deadline:
            time.sleep(0.02)


def at_end_of_input(callback: Callable[[], None]) -> None:
    """Call a function from a thread when standard input ends, because the parent is then gone."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        callback()

    threading.Thread(target=wait, daemon=True).start()
