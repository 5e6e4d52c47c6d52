"""A local Lakebase stops in seconds, however it is used, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

from airflow_provider_lakets.local.client import EXPLAINED, LocalServer
from airflow_provider_lakets.local.feed.process import FeedProcess
from tests.local.server.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# It takes one or two on a quiet machine; what hangs takes 20 and more.
LIMIT = 15.0


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Yield a folder that the tests of this module share, because creating a cluster is slow."""
    with tempfile.TemporaryDirectory(prefix="lake-", ignore_cleanup_errors=True) as path:
        yield Path(path) / "l"


@pytest.fixture
def running(folder: Path, postgres_version: int) -> Iterator[LocalServer]:
    """Yield a running Lakebase that a test may stop; the data is that of the previous test."""
    with LocalServer(folder, version=postgres_version) as server:
        yield server


def left(folder: Path) -> list[str]:
    """Return the command lines of the processes that run in a folder."""
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return [line for line in lines if str(folder) in line]


def seconds_to_stop(server: LocalServer) -> float:
    started = time.monotonic()
    server.stop()
    return time.monotonic() - started


def in_a_thread(session: psycopg.Connection[Any], query: str) -> Callable[[], type[BaseException] | None]:
    """Start a query, and return a function that returns its outcome."""
    ended: list[type[BaseException] | None] = []

    def run() -> None:
        try:
            session.execute(query)
        except psycopg.Error as err:
            ended.append(type(err))
        else:
            ended.append(None)

    thread = threading.Thread(target=run)
    thread.start()

    def outcome() -> type[BaseException] | None:
        thread.join(LIMIT)
        return ended[0]

    return outcome


def test_sessions_are_told_that_it_stops(running: LocalServer) -> None:
    idle, busy, watcher = running.connect(), running.connect(), running.connect()
    idle.execute("BEGIN")
    idle.execute("SELECT pg_current_xact_id()")
    outcome = in_a_thread(busy, "SELECT pg_sleep(600)")
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until(lambda: watcher.execute(sleeping).fetchone() == (1,), "a session sleeps")

    took = seconds_to_stop(running)

    assert took < LIMIT
    assert outcome() is psycopg.errors.AdminShutdown
    with pytest.raises(psycopg.errors.AdminShutdown):
        idle.execute("SELECT 1")
    assert left(running.folder) == []
    for session in (idle, busy, watcher):
        session.close()


def test_a_client_that_does_not_read_holds_nothing_up(running: LocalServer) -> None:
    session = running.connect()
    session.pgconn.send_query(b"SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")
    session.pgconn.flush()
    with running.connect() as watcher:
        sending = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"
        wait_until(lambda: watcher.execute(sending).fetchone() == (1,), "a session cannot send")

    assert seconds_to_stop(running) < LIMIT
    assert left(running.folder) == []
    session.close()


def test_a_feed_that_hangs_holds_nothing_up(running: LocalServer) -> None:
    feed = FeedProcess(running.folder).pid()
    assert feed is not None
    os.kill(feed, signal.SIGSTOP)

    assert seconds_to_stop(running) < LIMIT
    assert left(running.folder) == []


def has_data(folder: Path) -> bool:
    return (folder / "pg").exists()


def has_server(folder: Path) -> bool:
    return (folder / "pg/postmaster.pid").exists()


def has_feed(folder: Path) -> bool:
    return (folder / "feed.log").exists()


@pytest.mark.parametrize("moment", [has_data, has_server, has_feed])
def test_stopped_while_it_starts_it_leaves_nothing_running(
    moment: Callable[[Path], bool], postgres_version: int
) -> None:
    with tempfile.TemporaryDirectory(prefix="lake-", ignore_cleanup_errors=True) as path:
        folder = Path(path) / "l"
        command = [sys.executable, "-m", "airflow_provider_lakets.local.server", str(folder)]
        with subprocess.Popen(
            [*command, "--version", str(postgres_version)], stderr=subprocess.PIPE, text=True
        ) as server:
            wait_until(lambda: moment(folder), moment.__name__)
            started = time.monotonic()

            server.terminate()

            _, told = server.communicate(timeout=60)
        assert time.monotonic() - started < LIMIT
        assert (server.returncode, "Traceback" in told) == (0, False), told
        assert left(folder) == []


def test_a_start_that_is_interrupted_leaves_nothing_running(
    folder: Path, postgres_version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = LocalServer(folder, version=postgres_version)

    def interrupt(*_: object) -> None:
        wait_until(lambda: has_server(folder), "Postgres is being started")
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "_wait_until_ready", interrupt)
    with pytest.raises(KeyboardInterrupt):
        server.start()

    assert left(folder) == []


def test_what_a_killed_one_left_is_stopped_too(running: LocalServer) -> None:
    os.kill(running.state.pid, signal.SIGKILL)

    running.stop()

    # The feed notices by itself, a moment later.
    wait_until(lambda: left(running.folder) == [], "nothing runs")


def test_it_is_stopped_by_another_process_than_started_it(folder: Path, postgres_version: int) -> None:
    starter = LocalServer(folder, version=postgres_version).start()
    try:
        assert seconds_to_stop(LocalServer(folder)) < LIMIT
        assert left(folder) == []
    finally:
        starter.stop()


def test_a_branch_that_is_just_being_started_is_stopped_too(running: LocalServer) -> None:
    def knock() -> None:
        with contextlib.suppress(psycopg.OperationalError):  # a wrong password, if it gets that far
            psycopg.connect(host="127.0.0.3", port=running.state.port, user="me", password="no").close()

    guest = threading.Thread(target=knock)
    guest.start()
    wait_until(lambda: list(running.folder.glob("branches/*/base")), "the branch's cluster is being made")

    running.stop()

    assert left(running.folder) == []
    guest.join()


def test_one_that_is_started_while_another_stops_waits_for_it(
    running: LocalServer, postgres_version: int
) -> None:
    os.kill(running.state.pid, signal.SIGTERM)
    wait_until(lambda: not running.is_running, "it says that it runs no more")

    with LocalServer(running.folder, version=postgres_version) as next_one:
        running.stop()

        assert FeedProcess(next_one.folder).pid() is not None
        with next_one.connect() as session:
            assert session.execute("SELECT 1").fetchone() == (1,)


def test_there_is_no_second_one_in_a_folder(server: LocalServer) -> None:
    command = [sys.executable, "-m", "airflow_provider_lakets.local.server", str(server.folder)]

    second = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)

    assert second.returncode == EXPLAINED
    assert "already runs in" in second.stderr
    assert "Traceback" not in second.stderr
    assert server.is_running
