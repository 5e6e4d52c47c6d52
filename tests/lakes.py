"""Local Lakebases for tests."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_lakets.local.client import LocalServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def new_lake(version: int, *, feed_interval: float = 30) -> Iterator[LocalServer]:
    """
    Start a local Lakebase in a folder of its own; it takes seconds.

    :param version: Of Postgres.
    :param feed_interval: Seconds between two flushes of the change feed.
    """
    # A short path: a Unix socket's name is limited to 107 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="lake-", ignore_cleanup_errors=True) as folder,
        LocalServer(Path(folder), version=version, feed_interval=feed_interval) as server,
    ):
        yield server
