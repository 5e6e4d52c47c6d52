"""Airflow starts DBOS workflows: whatever happens to its tasks, each has one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.dbos.conftest import App, Effects, make_tables, session_url
from tests.e2e.airflow import wait_until
from tests.e2e.test_kills import kill

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.airflow import Airflow, Run
    from tests.e2e.conftest import World
    from tests.e2e.lake import Lake

# The lowest environment has SQLAlchemy 1.4, with which there is no DBOS.
pytestmark = pytest.mark.skipif(find_spec("dbos") is None, reason="there is no DBOS in this environment")


@pytest.fixture(scope="module", autouse=True)
def shop(world: World) -> Iterator[App]:
    """Yield a program that works off what Airflow starts."""
    shop = App(world.cloud, session_url(world.cloud), "dbos_e2e")
    shop.start()
    yield shop
    shop.kill()


@pytest.fixture
def effects(lake: Lake) -> Iterator[Effects]:
    make_tables(lake.admin, lake.cloud)
    yield Effects(lake.admin)
    lake.admin.execute("DROP SCHEMA app CASCADE")


def workflows(lake: Lake, run: Run) -> list[str]:
    """Return the statuses of the workflows that a run has started."""
    query = "SELECT status FROM dbos_e2e.workflow_status WHERE attributes -> 'airflow' ->> 'run_id' = %s"
    return [row[0] for row in lake.admin.execute(query, [run.run_id])]


def test_a_task_tried_again_and_one_cleared_keep_their_workflow(
    airflow: Airflow, lake: Lake, effects: Effects
) -> None:
    run = airflow.trigger("e2e_dbos")
    effects.break_(run.run_id, 2)
    run.wait_for("job", ["up_for_retry"])
    effects.mend(run.run_id, 2)
    run.succeed()
    assert effects.of(run.run_id) == [1, 2, 2, 3]

    run.clear().succeed()

    assert effects.of(run.run_id) == [1, 2, 2, 3, 1, 2, 3]
    assert workflows(lake, run) == ["SUCCESS"]


def test_each_run_of_a_backfill_has_a_workflow(airflow: Airflow, lake: Lake, effects: Effects) -> None:
    start = datetime(2025, 3, 1, tzinfo=timezone.utc)
    dates = ("--from-date", start.isoformat(), "--to-date", (start + timedelta(days=2)).isoformat())
    before = {run.run_id for run in airflow.runs("e2e_dbos")}
    airflow.server.command("backfill", "create", "--dag-id", "e2e_dbos", *dates)
    runs = [run.succeed() for run in airflow.runs("e2e_dbos") if run.run_id not in before]

    assert len(runs) == 3
    assert [workflows(lake, run) for run in runs] == [["SUCCESS"]] * 3
    assert [effects.of(run.run_id) for run in runs] == [[1, 2, 3]] * 3


def test_a_thousand_items_have_a_workflow_each(airflow: Airflow, lake: Lake, effects: Effects) -> None:
    run = airflow.succeed("e2e_dbos_items")

    assert workflows(lake, run) == ["SUCCESS"] * 1000
    done = lake.admin.execute("SELECT name FROM app.effects").fetchall()
    assert sorted(done) == sorted((f"item-{number}",) for number in range(1000))
    assert len(run.result("jobs")) == 1000


def test_a_workflow_outlives_the_triggerer_that_waits_for_it(
    airflow: Airflow, lake: Lake, effects: Effects
) -> None:
    run = airflow.trigger("e2e_dbos")
    effects.shut(run.run_id, 2)
    run.wait_for("job", ["deferred"])
    effects.wait_for(run.run_id, 2)
    airflow.server.kill("triggerer")
    effects.open(run.run_id, 2)
    wait_until(lambda: workflows(lake, run) == ["SUCCESS"], 60, "it has ended", run.told)
    airflow.server.launch("triggerer")
    run.succeed()

    assert run.task("job").tries == 1
    assert workflows(lake, run) == ["SUCCESS"]


def test_a_worker_killed_between_the_start_and_the_wait_starts_nothing_twice(
    airflow: Airflow, lake: Lake, effects: Effects
) -> None:
    run = airflow.trigger("e2e_dbos_dawdling")
    wait_until(lambda: workflows(lake, run), 120, "it has started", run.told)
    kill(run.task("job"), with_worker=True)
    run.succeed()

    assert run.task("job").tries > 1
    assert workflows(lake, run) == ["SUCCESS"]
    assert effects.of(run.run_id) == [1, 2, 3]
