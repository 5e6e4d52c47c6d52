"""A feed that crashes at any moment neither loses nor duplicates a change."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.local.feed import control
from airflow_provider_lakets.local.feed.catalog import Catalog
from airflow_provider_lakets.local.feed.delta import History
from airflow_provider_lakets.local.feed.replication import ReplicationStream
from tests.local.feed.test_first_rows import writers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.local.conftest import Cdf


class Crash(BaseException):
    """Simulates the end of the process."""


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Yield a function that makes a feed crash before or after a call of a method."""

    def arm(owner: type, method: str, *, after: bool, nth: int = 1) -> None:
        original = getattr(owner, method)
        calls = itertools.count(1)

        def die(*args: Any, **kwargs: Any) -> Any:
            is_last = next(calls) == nth
            if is_last and not after:
                raise Crash
            result = original(*args, **kwargs)
            if is_last:
                raise Crash
            return result

        monkeypatch.setattr(owner, method, die)

    return arm


MOMENTS = [
    pytest.param(History, "append", False, id="before-the-delta-commit"),
    pytest.param(History, "append", True, id="after-the-delta-commit"),
    pytest.param(History, "_sync", False, id="before-the-delta-commit-is-on-disk"),
    pytest.param(Catalog, "set_status", False, id="before-the-status"),
    pytest.param(Catalog, "set_status", True, id="after-the-status"),
    pytest.param(ReplicationStream, "confirm", False, id="before-the-slot-moves"),
    pytest.param(ReplicationStream, "confirm", True, id="after-the-slot-moves"),
    pytest.param(Catalog, "save_first_rows", False, id="before-the-reading-is-noted"),
    pytest.param(Catalog, "save_first_rows", True, id="after-the-reading-is-noted"),
    pytest.param(Catalog, "publish", False, id="before-the-table-is-published"),
    pytest.param(Catalog, "publish", True, id="after-the-table-is-published"),
    pytest.param(Catalog, "ensure_slot", True, id="after-the-slot-is-made"),
]


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize(("owner", "method", "after"), MOMENTS)
def test_a_crash_while_tables_are_begun(
    cdf: Cdf, crash: Any, owner: type, method: str, after: bool, nth: int
) -> None:
    for name in ("a", "b"):
        cdf.shadow(name)
        cdf.execute(f"INSERT INTO {name} VALUES (1, 'x'), (2, 'y')")
    crash(owner, method, after=after, nth=nth)

    with pytest.raises(Crash):
        run_twice(cdf)
    cdf.execute("UPDATE a SET note = 'z'; DELETE FROM b WHERE id = 1")
    cdf.feed.run_once()

    assert cdf.is_replayed("a")
    assert cdf.is_replayed("b")
    assert cdf.one(
        "SELECT bool_and(status = 'STREAMING' AND committed_lsn IS NOT NULL) FROM wal2delta.tables"
    )


def run_twice(cdf: Cdf) -> None:
    """Run two rounds, as two feeds, with changes in between, so that most steps happen twice."""
    cdf.feed.run_once()
    cdf.execute("INSERT INTO a VALUES (10); INSERT INTO b VALUES (10)")
    cdf.feed.close()
    cdf.feed.run_once()


WHILE_STREAMING = [
    moment for moment in MOMENTS if moment.values[1] in {"append", "_sync", "set_status", "confirm"}
]


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize(("owner", "method", "after"), WHILE_STREAMING)
def test_a_crash_while_changes_are_streamed(
    cdf: Cdf, crash: Any, owner: type, method: str, after: bool, nth: int
) -> None:
    cdf.feed.batch_rows = 3
    for name in ("a", "b"):
        cdf.shadow(name)
    cdf.feed.run_once()
    for number in range(4):
        with cdf.conn.transaction():
            cdf.execute(f"INSERT INTO a VALUES ({number}); INSERT INTO b VALUES ({number})")
        cdf.execute(f"UPDATE a SET note = 'seen {number}'")
    crash(owner, method, after=after, nth=nth)

    with pytest.raises(Crash):
        cdf.feed.run_once()
    cdf.feed.run_once()

    assert cdf.is_replayed("a")
    assert cdf.is_replayed("b")
    assert len(cdf.history("a")) == 4 + 2 * (1 + 2 + 3 + 4)
    assert cdf.status("b") == ("STREAMING", cdf.commit_lsn("b"), True)


@contextmanager
def feed_process(cdf: Cdf, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "airflow_provider_lakets.local.feed.feed",
        cdf.conninfo,
        str(cdf.delta_dir),
    ]
    with log.open("ab") as output:
        process = subprocess.Popen([*command, "--interval", "0.05"], stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kill_rounds(cdf: Cdf, tmp_path: Path, rounds: int) -> None:
    """Kill a feed repeatedly while three sessions write, with one more table in each round."""
    names = [cdf.shadow(f"t{number}") for number in range(4)]
    chance = random.Random(rounds)
    recent: list[str] = []
    with writers(cdf.conninfo, names):
        for number in range(rounds):
            with feed_process(cdf, tmp_path / "feed.log") as process:
                recent.append(cdf.shadow(f"new{number}"))
                cdf.execute(f"INSERT INTO {recent[-1]} SELECT generate_series(1, 100)")
                while not control.feed_is_running(cdf.conninfo):
                    assert process.poll() is None, (tmp_path / "feed.log").read_text()
                    time.sleep(0.01)
                time.sleep(chance.uniform(0, 0.6))
                if number % 10 == 9:
                    # Killed this often it may never catch up: then the log would grow without
                    # bound.
                    control.wait_flushed(cdf.conninfo, timeout=60)
            if len(recent) > 5:
                assert not cdf.is_in_delta(recent[0]) or cdf.is_replayed(recent[0])
                cdf.execute(f"DROP TABLE {recent.pop(0)}")
    with feed_process(cdf, tmp_path / "feed.log"):
        control.wait_flushed(cdf.conninfo, timeout=120)
    assert [name for name in (*names, *recent) if not cdf.is_replayed(name)] == []


def test_killed_under_load_it_loses_and_doubles_nothing(cdf: Cdf, tmp_path: Path) -> None:
    kill_rounds(cdf, tmp_path, 5)


@pytest.mark.slow
def test_killed_two_hundred_times_under_load_it_loses_and_doubles_nothing(cdf: Cdf, tmp_path: Path) -> None:
    kill_rounds(cdf, tmp_path, 200)
