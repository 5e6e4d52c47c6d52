"""Where tests put their thousands of databases: in memory, where the machine has enough of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil

MEMORY = Path("/dev/shm")
ENOUGH = 8 << 30  # bytes; a run needs about two


def use_memory() -> None:
    """
    Put all temporary files in memory, unless TMPDIR is set or memory is short.

    A file system on a disk can take more time for the thousand files of a database than the test in
    it.
    """
    if "TMPDIR" in os.environ or not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return
    found = os.statvfs(MEMORY)
    room = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    # Some tests run what they write.
    if room >= ENOUGH and not found.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)
