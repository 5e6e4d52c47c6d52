"""A Lakebase in a folder: start, stop, join, crash, recover."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.feed.control import FeedNotCaughtUpError
from airflow_provider_lakets.local.feed.process import FeedStartError
from airflow_provider_lakets.local.lakebase import LocalLakebase
from tests.conftest import POSTGRES_VERSION, THROWAWAY

if TYPE_CHECKING:
    from collections.abc import Iterator

SHADOW = """
CREATE SCHEMA IF NOT EXISTS lakets_cdf;
CREATE TABLE lakets_cdf.t (id integer, note text);
ALTER TABLE lakets_cdf.t REPLICA IDENTITY FULL;
INSERT INTO lakets_cdf.t VALUES (1, 'a'), (1, 'a'), (2, 'b');
"""


def lakebase(folder: Path, *, keep_running: bool = False) -> LocalLakebase:
    return LocalLakebase(
        folder, version=POSTGRES_VERSION, feed_interval=60, settings=THROWAWAY, keep_running=keep_running
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Yield a folder that the tests of this module share, because creating a cluster is slow."""
    with tempfile.TemporaryDirectory(prefix="lakets-", ignore_cleanup_errors=True) as path:
        yield Path(path) / "lakebase"


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalLakebase]:
    """Yield a running Lakebase in another folder, because starting one is slow too."""
    with (
        tempfile.TemporaryDirectory(prefix="lakets-", ignore_cleanup_errors=True) as path,
        lakebase(Path(path) / "lakebase") as running,
    ):
        yield running


@pytest.fixture
def local(shared: LocalLakebase) -> Iterator[LocalLakebase]:
    """Yield a running Lakebase with one shadow of three rows, none of them in Delta yet."""
    with psycopg.connect(shared.conninfo(), autocommit=True) as conn:
        conn.execute("DROP TABLE IF EXISTS lakets_cdf.t")
        shared.wait_flushed()
        conn.execute(SHADOW)
    yield shared
    if shared.feed_pid() is None:
        shared.start_feed()


def execute(local: LocalLakebase, query: str) -> None:
    with psycopg.connect(local.conninfo(), autocommit=True) as conn:
        conn.execute(query)


def processes(folder: Path) -> list[str]:
    """Return the command lines of the processes that run in a folder."""
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:  # noqa: PERF203 - processes end while we look
            continue
    return [line for line in lines if str(folder) in line]


def test_what_is_committed_is_in_delta_after_waiting(local: LocalLakebase) -> None:
    local.wait_flushed()
    execute(local, "DELETE FROM lakets_cdf.t WHERE id = 2; UPDATE lakets_cdf.t SET note = 'c'")
    local.wait_flushed()

    assert local.current_rows("t").to_pylist() == [{"id": 1, "note": "c"}] * 2


def test_a_shadow_made_anew_is_played_back_from_there(local: LocalLakebase) -> None:
    local.wait_flushed()
    execute(local, "DROP TABLE lakets_cdf.t")
    execute(local, SHADOW)
    local.wait_flushed()

    assert len(local.current_rows("t")) == 3


def test_a_shadow_without_a_row_yet_has_an_empty_history(local: LocalLakebase) -> None:
    assert local.history("nothing").num_rows == 0
    assert local.current_rows("nothing").num_rows == 0


def test_airflow_reaches_it_through_the_connection(
    local: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_lakets.hooks.lakebase import LakebaseHook

    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", local.airflow_connection())

    assert LakebaseHook().get_first("SELECT count(*) FROM lakets_cdf.t") == (3,)


def test_a_role_for_the_jobs_may_write_but_is_no_superuser(local: LocalLakebase) -> None:
    local.create_role("jobs")
    local.create_role("jobs")

    with psycopg.connect(local.conninfo("jobs"), autocommit=True) as conn:
        conn.execute("INSERT INTO lakets_cdf.t VALUES (3)")
        conn.execute("CREATE TABLE public.mine (id integer); DROP TABLE public.mine")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("DROP TABLE lakets_cdf.t")


def test_a_killed_feed_is_started_again_and_goes_on(local: LocalLakebase) -> None:
    local.wait_flushed()
    before = len(local.history("t"))
    local.kill_feed()
    execute(local, "INSERT INTO lakets_cdf.t VALUES (3)")

    local.start_feed()
    local.wait_flushed()

    assert len(local.current_rows("t")) == 4
    assert len(local.history("t")) == before + 1


def test_waiting_for_a_dead_feed_says_so(local: LocalLakebase) -> None:
    local.kill_feed()
    execute(local, "INSERT INTO lakets_cdf.t VALUES (3)")

    with pytest.raises(FeedNotCaughtUpError, match="it is not running"):
        local.wait_flushed(timeout=0)


def test_waiting_for_a_paused_feed_says_so(local: LocalLakebase) -> None:
    local.pause_feed()
    with pytest.raises(FeedNotCaughtUpError, match="it is paused"):
        local.wait_flushed(timeout=0.2)

    local.resume_feed()
    local.wait_flushed()

    assert len(local.current_rows("t")) == 3


def test_a_feed_that_ends_at_once_is_reported_with_its_log(
    local: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.stop_feed()
    monkeypatch.setattr(local, "feed_interval", "soon")

    with pytest.raises(FeedStartError, match="invalid float value: 'soon'"):
        local.start_feed()


def test_starting_it_twice_joins_and_leaves_it_running(local: LocalLakebase) -> None:
    with lakebase(local.folder) as second:
        execute(second, "INSERT INTO lakets_cdf.t VALUES (3)")
        second.wait_flushed()

    assert len(local.current_rows("t")) == 4
    local.wait_flushed()


def test_nothing_runs_after_the_end(folder: Path) -> None:
    with lakebase(folder):
        assert len(processes(folder)) > 1

    assert processes(folder) == []


def test_kept_running_it_is_joined_and_stopped_by_another_process(folder: Path) -> None:
    start(folder, "with LocalLakebase(Path({folder!r}), version={version}, keep_running=True): pass")
    try:
        joined = lakebase(folder).start()
        joined.wait_flushed()
    finally:
        joined.stop()

    assert processes(folder) == []


def test_what_a_killed_process_left_behind_is_taken_up(folder: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        start(folder, "LocalLakebase(Path({folder!r}), version={version}).start(); os.kill(os.getpid(), 9)")

    with lakebase(folder) as again:
        execute(again, "DROP TABLE IF EXISTS lakets_cdf.t")
        execute(again, SHADOW)
        again.wait_flushed()
        assert len(again.current_rows("t")) == 3

    assert processes(folder) == []


def start(folder: Path, code: str) -> None:
    """Run a statement about a Lakebase in a separate process."""
    code = code.format(folder=str(folder), version=POSTGRES_VERSION)
    imports = ["import os", "from pathlib import Path"]
    imports += ["from airflow_provider_lakets.local.lakebase import LocalLakebase"]
    command = [sys.executable, "-W", "ignore", "-c", "\n".join([*imports, code])]
    # What it leaves running must not hold our pipes open.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_killed_server_is_started_again(folder: Path) -> None:
    with lakebase(folder) as running:
        execute(running, "DROP TABLE IF EXISTS lakets_cdf.t")
        execute(running, SHADOW)
        running.wait_flushed()
        execute(running, "DROP TABLE lakets_cdf.t")
        running.wait_flushed()
        execute(running, "SET synchronous_commit = on;" + SHADOW)
        # The slot goes back to where it stood at the last checkpoint: before the history of the
        # first table.
        server = int((folder / "pg/postmaster.pid").read_text().split()[0])
        os.kill(server, signal.SIGKILL)

    with lakebase(folder) as again:
        again.wait_flushed()

        assert len(again.current_rows("t")) == 3


def test_the_feed_does_not_outlive_a_killed_owner(folder: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        start(folder, "LocalLakebase(Path({folder!r}), version={version}).start(); os.kill(os.getpid(), 9)")

    with lakebase(folder).postgres as server:
        deadline = time.monotonic() + 10
        while any("local.feed" in line for line in processes(folder)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert server.conninfo()


def test_sigterm_ends_the_feed_cleanly(local: LocalLakebase) -> None:
    pid = local.feed_pid()
    assert pid is not None

    os.kill(pid, signal.SIGTERM)

    with pytest.raises(FeedStartError, match="The feed ended with code 0"):
        watch(local)


def watch(local: LocalLakebase) -> None:
    """Poll the feed until it has ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        local.feed.check()
        time.sleep(0.02)


def test_a_folder_of_another_version_is_refused(folder: Path) -> None:
    with lakebase(folder):
        pass  # it is made by this version
    other = LocalLakebase(folder, version=18 if POSTGRES_VERSION < 18 else 16)

    with pytest.raises(LakeTSError, match="Version mismatch"):
        other.start()


def test_the_id_of_a_dead_server_is_not_taken_for_a_live_one(folder: Path) -> None:
    # In a container the process ids start over: the one in the files is somebody else by now.
    locks = [folder / "pg/postmaster.pid", folder / "pg/.s.PGSQL.5432.lock"]
    with lakebase(folder):
        texts = [lock.read_text() for lock in locks]
    owner = (folder / "pg").stat().st_uid  # Postgres does not mind the processes of other users
    with subprocess.Popen(["sleep", "600"], user=owner) as stranger:
        try:
            for lock, text in zip(locks, texts, strict=True):
                lock.write_text(text.replace(text.split("\n")[0], str(stranger.pid), 1))

            with lakebase(folder) as again:
                again.wait_flushed()
                assert stranger.poll() is None
        finally:
            stranger.kill()


def test_it_is_known_without_the_right_to_see_where_it_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So it is for root in a container: the server runs as another user.
    def deny(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "cwd", deny)
    with lakebase(folder):
        os.kill(int((folder / "pg/postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    with lakebase(folder) as again:
        again.wait_flushed()

    assert processes(folder) == []
