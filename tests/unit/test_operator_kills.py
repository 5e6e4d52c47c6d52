"""Killed tasks: the server stops their work at once, and the next try succeeds."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.sdk.execution_time.timeout import TimeoutPosix

from airflow_provider_lakets.operators.install import LakeTSInstallOperator
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator
from airflow_provider_lakets.sensors.durability import LakeTSDurabilitySensor
from airflow_provider_lakets.sensors.rollups import LakeTSRollupFreshSensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_lakets.operators.base import LakeTSBaseOperator
    from tests.lab import Lab
    from tests.stage import Stage

TASKS = {
    "install": lambda: LakeTSInstallOperator(task_id="x"),
    "partition": lambda: LakeTSPartitionOperator(task_id="x"),
    "candidates": lambda: LakeTSTierCandidatesOperator(task_id="x"),
    "tier": lambda: LakeTSTierOperator(task_id="x", chunks="public.metrics_20240101_000000"),
    "retention": lambda: LakeTSRetentionOperator(task_id="x", table="metrics"),
    "rollups": lambda: LakeTSRollupRefreshOperator(task_id="x"),
    "durability": lambda: LakeTSDurabilitySensor(task_id="x", table="metrics", deferrable=False),
    "fresh": lambda: LakeTSRollupFreshSensor(
        task_id="x", rollup="hourly", max_lag="1 hour", deferrable=False
    ),
}
each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)

OURS = "datname = current_database() AND application_name LIKE 'airflow-provider%%'"


@pytest.fixture
def engine() -> str:
    """Use only our engine, because these tests cover the provider."""
    return "ours"


@pytest.fixture
def busy(lake: Stage, lab: Lab) -> Iterator[Lab]:
    """A ChronoTable with a RollUp; another session locks their registries."""
    lake.synced()
    lake.rollup("hourly")
    with psycopg.connect(lab.conninfo) as other:
        other.execute("LOCK lakets._chronotable_registry, lakets._rollup_registry IN ACCESS EXCLUSIVE MODE")
        yield lab


def context() -> Any:
    """Return the part of a task's context that the operators read."""
    return {
        "ti": SimpleNamespace(try_number=1, xcom_push=lambda **_: None, task_id="x", map_index=-1),
        "dag_run": SimpleNamespace(start_date=None),
        "outlet_events": OutletEventAccessors(),
    }


def wait_for(lab: Lab, what: str, count: int, seconds: float) -> None:
    """Wait until this many sessions of the provider are in a state."""
    found = None
    patience = time.monotonic() + seconds
    while found != count and time.monotonic() < patience:
        found = lab.value(f"SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND {what}")
        threading.Event().wait(0.02)
    assert found == count, f"{found} sessions are in the state {what}"


@contextmanager
def seconds(count: float) -> Iterator[None]:
    """Apply Airflow's own execution_timeout."""
    # Python swallows an error in a finalizer, and the garbage of earlier tests has some.
    gc.disable()
    try:
        with TimeoutPosix(count):  # type: ignore[no-untyped-call]
            yield
    finally:
        gc.enable()


def held_up(lab: Lab, count: int = 1) -> None:
    wait_for(lab, "wait_event_type = 'Lock'", count, 30)


def gone(lab: Lab) -> None:
    """Wait until no session is left, long before the server notices after 10 s."""
    wait_for(lab, "true", 0, 5)


def execute_until(task: LakeTSBaseOperator, then: Callable[[], None]) -> None:
    """Run a task in a thread and an action meanwhile; wait until the task has failed."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            task.execute(context())
        except Exception as err:
            errors.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    then()
    thread.join(timeout=15)
    assert not thread.is_alive()
    assert errors


# On kill, and after execution_timeout


@each_task
def test_on_kill_ends_the_statement_and_the_session(
    busy: Lab, task: Callable[[], LakeTSBaseOperator]
) -> None:
    operator = task()

    def kill() -> None:
        held_up(busy)
        operator.on_kill()

    execute_until(operator, kill)

    gone(busy)


@pytest.fixture
def changed(lake: Stage) -> None:
    """Three RollUps, each with a change to take in; without one a refresh locks nothing."""
    lake.table()
    for name in ("one", "two", "three"):
        lake.rollup(name)
    lake.run("UPDATE metrics SET value = value + 1")
    lake.set_lock_timeout("1min")


@pytest.mark.usefixtures("changed")
def test_on_kill_ends_all_refreshes_that_run_side_by_side(lab: Lab) -> None:
    operator = LakeTSRollupRefreshOperator(task_id="x", parallelism=3)

    def kill() -> None:
        held_up(lab, 3)
        operator.on_kill()

    with psycopg.connect(lab.conninfo) as other:
        other.execute("LOCK metrics IN ACCESS EXCLUSIVE MODE")
        execute_until(operator, kill)
        gone(lab)


@each_task
def test_a_timeout_leaves_no_session_behind(busy: Lab, task: Callable[[], LakeTSBaseOperator]) -> None:
    operator = task()

    with pytest.raises(BaseException, match="Timeout") as raised, seconds(1):
        operator.execute(context())

    assert "Timeout" in type(raised.value).__name__
    gone(busy)


@pytest.mark.usefixtures("changed")
def test_a_timeout_ends_all_refreshes_that_run_side_by_side(lab: Lab) -> None:
    with psycopg.connect(lab.conninfo) as other:
        other.execute("LOCK metrics IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(BaseException, match="Timeout"), seconds(1):
            LakeTSRollupRefreshOperator(task_id="x", parallelism=3).execute(context())
        gone(lab)


# Killed with -9: the worker cancels nothing

WORKER = """
import json, sys
from datetime import datetime, timezone
from types import SimpleNamespace
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow_provider_lakets.operators import rollups, tiering
module, name, arguments = json.loads(sys.argv[1])
operator = getattr({"rollups": rollups, "tiering": tiering}[module], name)(task_id="x", **arguments)
operator.execute({
    "ti": SimpleNamespace(try_number=1, map_index=-1, xcom_push=lambda **_: None),
    "dag_run": SimpleNamespace(start_date=None),
    "outlet_events": OutletEventAccessors(),
})
"""


@pytest.fixture
def worker(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.Popen[bytes]]:
    """Return a function that runs an operator in a separate process."""
    # The server looks every 10 seconds whether somebody still listens; here more often, to save the
    # time.
    extra = {"sslmode": "disable", "options": "-c client_connection_check_interval=200ms"}
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(extra=extra))

    def start(module: str, name: str, **arguments: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "ignore", "-c", WORKER, json.dumps([module, name, arguments])]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return start


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_a_worker_killed_in_mid_cascade_is_made_good_by_the_next_try(
    lake: Stage, lab: Lab, worker: Callable[..., subprocess.Popen[bytes]]
) -> None:
    lake.table()
    lake.rollup("hourly")
    lake.rollup("daily", reads="hourly", every="1 day")
    lake.run("INSERT INTO metrics VALUES (9, %s, 9)", lake.at(2, 3))
    begun = lab.value("SELECT now()")
    lake.set_lock_timeout("1min")

    with psycopg.connect(lab.conninfo) as other:
        other.execute('LOCK "_rollup_daily" IN ACCESS EXCLUSIVE MODE')
        process = worker("rollups", "LakeTSRollupRefreshOperator")
        held_up(lab)
        kill(process)
        gone(lab)
    half = (lake.difference("hourly"), lake.difference("daily") != [])
    done = {one.name: one for one in lab.hook().refresh(since=begun)}

    assert half == ([], True)
    assert (lake.difference("hourly"), lake.difference("daily")) == ([], [])
    assert [done[name].changed for name in ("hourly", "daily")] == [True, True]


def test_a_worker_killed_in_mid_tiering_is_made_good_by_the_next_try(
    lake: Stage, lab: Lab, worker: Callable[..., subprocess.Popen[bytes]]
) -> None:
    lake.synced()
    begun = lab.value("SELECT now()")
    lake.set_lock_timeout("1min")
    chunks = [lake.chunk(day) for day in (1, 2, 3)]

    with psycopg.connect(lab.conninfo) as other:
        other.execute("SELECT FROM lakets._chunk_metadata WHERE chunk_name = %s FOR UPDATE", [chunks[1]])
        process = worker("tiering", "LakeTSTierOperator", chunks=chunks)
        held_up(lab)
        kill(process)
        gone(lab)
    half = lake.statuses()
    done = lab.hook().tier(chunks, since=begun)

    assert half == {1: "tiered", 2: "active", 3: "active", 4: "active"}
    assert lake.statuses() == {1: "tiered", 2: "tiered", 3: "tiered", 4: "active"}
    assert [one.new for one in done] == [True, True, True]
