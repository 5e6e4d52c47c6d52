"""A worker that is killed with -9 leaves nothing half done, and nothing behind on the server."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import psutil

from tests.e2e.airflow import wait_until
from tests.e2e.lake import LONG

if TYPE_CHECKING:
    from tests.e2e.airflow import Airflow, Task
    from tests.e2e.lake import Lake

# Longer than a server looks away from its clients, and shorter than anybody would notice.
GONE_SECONDS = 30


def kill(task: Task, *, with_worker: bool) -> None:
    """Kill a task's process; if the executor's supervisor dies too, nobody reports its end."""
    assert task.pid
    process = psutil.Process(task.pid)
    worker = process.parent()
    if with_worker:
        assert worker
        worker.kill()
    process.kill()


def test_a_task_killed_in_mid_cascade_is_tried_again_and_ends_right(airflow: Airflow, lake: Lake) -> None:
    lake.table("metrics", days=3, drop=None)
    lake.rollup("first", "metrics")
    lake.rollup("second", "metrics")
    lake.touch("metrics")
    lake.slow(LONG)

    run = airflow.trigger("lakets_rollup_refresh")
    wait_until(lambda: lake.sleepers() == 2, 60, "the refreshes are under way", run.told)
    # Airflow 3.1 does not try a task again whose process died while its worker lives.
    kill(run.task("refresh"), with_worker=version("apache-airflow-core").startswith("3.1."))
    lake.slow(0)
    wait_until(lambda: not lake.sleepers(), GONE_SECONDS, "no session is left", lambda: str(lake.sessions()))
    run.succeed()

    assert run.task("refresh").tries > 1
    assert lake.wrong_buckets("first", "metrics") == lake.wrong_buckets("second", "metrics") == []


def test_a_worker_killed_in_mid_tiering_is_replaced_and_the_rest_is_flagged(
    airflow: Airflow, lake: Lake
) -> None:
    lake.table("metrics", days=14, drop=None)
    lake.wait_flushed()
    due = lake.candidates("metrics")
    lake.slow_tiering(1.0)

    run = airflow.trigger("lakets_tiering")
    wait_until(lambda: len(lake.chunks("metrics", "tiered")) > 1, 60, "some chunks are flagged", run.told)
    kill(run.task("tier"), with_worker=True)
    flagged = lake.chunks("metrics", "tiered")
    lake.slow_tiering(0)
    wait_until(lambda: not lake.sessions(), GONE_SECONDS, "no session is left", lambda: str(lake.sessions()))
    run.succeed()

    assert len(flagged) < len(due)
    assert lake.chunks("metrics", "tiered") == due
    assert run.task("tier").tries > 1
    airflow.server.check_alive()
