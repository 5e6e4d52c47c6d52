"""Deferral in Airflow: the task releases its worker, its trigger runs, the task resumes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import airflow
import pytest
from packaging.version import Version

from airflow_provider_lakets.exceptions import LakeTSPartialFailureError
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierOperator
from airflow_provider_lakets.sensors.durability import LakeTSDurabilitySensor
from airflow_provider_lakets.sensors.rollups import LakeTSRollupFreshSensor
from tests.triggering import instead_of_explaining

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from tests.dags.conftest import Run
    from tests.lab import Lab
    from tests.pauses import Pauses
    from tests.stage import HandFeed, Stage

    RunDag = Callable[[DAG], Run]

COLD = 1
IS_3_1 = Version(airflow.__version__) < Version("3.2")


@pytest.fixture
def engine() -> str:
    """Use only our engine; tests of the triggers cover the differences of LakeTS 0.1.x."""
    return "ours"


@pytest.fixture
def feed(lake: Stage, pauses: Pauses) -> HandFeed:
    """A synced table past its retention, durable except for one chunk with an unflushed change."""
    feed = lake.synced()
    lake.run("SELECT lakets._get_chunks_to_tier('metrics')")  # now all is proved to be flushed
    lake.run("INSERT INTO metrics VALUES (9, %s, 9)", lake.at(COLD, 1))
    return feed


def told(run: Run) -> str:
    """Return the message of the last failed try."""
    return str(run.errors[-1])


def deferrals(run: Run) -> int:
    """Count how often a task was deferred, and remove these from the errors."""
    deferred = [error for error in run.errors if type(error).__name__ == "TaskDeferred"]
    run.errors[:] = [error for error in run.errors if error not in deferred]
    return len(deferred)


def xcom(run: Run, task_id: str, key: str) -> Any:
    """Return an XCom of a task other than its result."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        found: Any = session.scalars(XComModel.get_many(key=key, task_ids=task_id, **run._key))
        row = found.one()
        return str(row.value).strip('"')


# Tiering


def tier_all(lake: Stage, **arguments: Any) -> LakeTSTierOperator:
    chunks = [lake.chunk(day) for day in (1, 2, 3)]
    return LakeTSTierOperator(task_id="tier", chunks=chunks, deferrable=True, **arguments)


def test_flags_what_it_can_then_waits_then_flags_the_rest(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed, pauses: Pauses
) -> None:
    while_waiting: list[dict[int, str]] = []
    pauses.then(lambda: while_waiting.append(lake.statuses()), feed.flush)
    with dag:
        tier_all(lake)

    done = run(dag)

    assert (done.state, deferrals(done), done.errors) == ("success", 1, [])
    assert while_waiting == [{1: "active", 2: "tiered", 3: "tiered", 4: "active"}]
    assert [result["outcome"] for result in done.result("tier")] == ["tiered"] * 3


def test_does_not_defer_when_all_can_be_flagged(dag: DAG, run: RunDag, lake: Stage, feed: HandFeed) -> None:
    feed.flush()
    with dag:
        tier_all(lake)

    done = run(dag)

    assert (done.state, deferrals(done)) == ("success", 0)


def test_fails_when_the_wait_is_over_and_tells_what_is_deferred_and_why(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed
) -> None:
    with dag:
        tier_all(lake, wait_timeout=0)

    done = run(dag)

    assert (done.state, done.tries["tier"], deferrals(done)) == ("failed", 1, 1)
    assert told(done).splitlines() == [
        "Timed out after 0:00:00: 1 still deferred; the rest is done.",
        f"{lake.chunk(COLD)}: changes to it are not known to be flushed yet",
    ]
    assert [one["outcome"] for one in done.result("tier")] == ["deferred", "tiered", "tiered"]


def test_what_is_deferred_after_the_wait_can_be_no_failure(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed
) -> None:
    with dag:
        tier_all(lake, wait_timeout=timedelta(0), fail_when_deferred=False)

    done = run(dag)

    assert done.state == "success"
    assert [one["outcome"] for one in done.result("tier")] == ["deferred", "tiered", "tiered"]


def test_what_was_flagged_before_the_wait_may_be_dropped_during_it(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed, pauses: Pauses
) -> None:
    pauses.then(lambda: lake.run("SELECT lakets.execute_retention('metrics')"), feed.flush)
    with dag:
        tier_all(lake)

    done = run(dag)

    assert done.state == "success"
    assert lake.statuses() == {1: "tiered", 2: "dropped", 3: "dropped", 4: "dropped"}


def test_chunk_that_is_written_again_before_it_can_be_flagged_is_for_the_retry(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed
) -> None:
    lake.run(  # it is reported durable, but then changed again
        "CREATE OR REPLACE FUNCTION lakets.explain_durability(p_chunk_name text) RETURNS text LANGUAGE sql"
        " AS $$ INSERT INTO public.metrics SELECT 9 + count(*), '2024-01-01 08:00+00' FROM public.metrics;"
        " SELECT NULL::text $$"
    )
    with dag:
        tier_all(lake)

    done = run(dag)

    # In Airflow 3.1 a DAG test forgets in which try the task was deferred, and resumes the retry as
    # well.
    assert (done.state, done.tries["tier"], deferrals(done)) == ("failed", 2, 1 if IS_3_1 else 2)
    assert isinstance(done.errors[0], LakeTSPartialFailureError)


def test_what_a_retry_may_cure_is_tried_again_before_the_wait(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed, pauses: Pauses, lab: Lab
) -> None:
    # The chunk of day 2 is busy for one try of the task: as often as the hook tries by itself.
    lake.run("CREATE SEQUENCE tried")
    lake.run("ALTER FUNCTION lakets.tier_chunk RENAME TO _tier_chunk")
    lake.run(
        "CREATE FUNCTION lakets.tier_chunk(p_chunk_name text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        f" IF p_chunk_name = '{lake.chunk(2)}' AND nextval('tried') <= 4 THEN"
        " RAISE EXCEPTION 'busy' USING ERRCODE = '55P03'; END IF;"
        " RETURN lakets._tier_chunk(p_chunk_name); END $$"
    )
    pauses.then(feed.flush)
    with dag:
        tier_all(lake)

    done = run(dag)

    assert (done.state, done.tries["tier"], deferrals(done)) == ("success", 2, 1)
    assert "public.metrics_20240102_000000: contended" in told(done)


def test_an_error_in_the_trigger_fails_the_task_with_its_words(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed, pauses: Pauses
) -> None:
    feed.close()
    lake._feeds.clear()
    pauses.then(lambda: lake.run("DROP SCHEMA lakets, lakets_cdf CASCADE"))
    with dag:
        tier_all(lake)

    done = run(dag)

    assert (done.state, done.tries["tier"]) == ("failed", 1)
    assert "Run `lakets install`" in told(done)


def test_mapped_tasks_wait_each_for_their_own_and_keep_their_names(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed, pauses: Pauses
) -> None:
    pauses.then(feed.flush)
    with dag:
        LakeTSTierOperator.partial(task_id="tier", deferrable=True).expand(
            chunks=[[lake.chunk(2), lake.chunk(COLD)], [lake.chunk(3)]]
        )

    done = run(dag)

    assert (done.state, deferrals(done)) == ("success", 1)
    assert done.names["tier"] == [f"{lake.chunk(2)} and 1 more", lake.chunk(3)]
    assert {one["outcome"] for results in done.results("tier") for one in results} == {"tiered"}


# Retention


def drop_expired(**arguments: Any) -> LakeTSRetentionOperator:
    return LakeTSRetentionOperator(task_id="drop", table="metrics", deferrable=True, **arguments)


def test_drops_what_it_can_then_waits_then_drops_the_rest(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed, pauses: Pauses
) -> None:
    while_waiting: list[dict[int, str]] = []
    pauses.then(lambda: while_waiting.append(lake.statuses()), feed.flush)
    with dag:
        drop_expired()

    done = run(dag)

    assert (done.state, deferrals(done)) == ("success", 1)
    assert while_waiting == [{1: "active", 2: "dropped", 3: "dropped", 4: "dropped"}]
    result = done.result("drop")
    assert (result["outcome"], result["deferred"]) == ("dropped", [])
    assert result["dropped"] == [lake.chunk(day) for day in (2, 3, 4, 1)]


def test_waits_for_the_rollup_that_has_yet_to_absorb_a_chunk(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed, pauses: Pauses
) -> None:
    lake.rollup("hourly")
    lake.run("UPDATE metrics SET value = 5 WHERE id = 2")
    feed.flush()
    pauses.then(feed.flush, lambda: lake.refresh("hourly"))
    with dag:
        drop_expired()

    done = run(dag)

    assert done.state == "success"
    assert lake.value("SELECT count(*) FROM metrics") == 0


def test_reports_what_is_deferred_after_the_wait_without_failing(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed
) -> None:
    with dag:
        drop_expired(wait_timeout=0)

    done = run(dag)

    assert done.state == "success"
    result = done.result("drop")
    assert (result["outcome"], len(result["dropped"])) == ("dropped", 3)
    assert [(stays["chunk"], stays["reason"]) for stays in result["deferred"]] == [
        (lake.chunk(COLD), "not durable: changes to it are not known to be flushed yet")
    ]


def test_fails_for_what_is_deferred_after_the_wait_when_asked_to(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed
) -> None:
    with dag:
        drop_expired(wait_timeout=0, fail_when_deferred=True)

    done = run(dag)

    assert (done.state, done.tries["drop"]) == ("failed", 1)
    assert f"{lake.chunk(COLD)}: not durable" in told(done)
    assert len(done.result("drop")["dropped"]) == 3


# Sensors


@pytest.mark.parametrize("deferrable", [True, False], ids=["in the triggerer", "in a worker"])
def test_what_follows_a_sensor_runs_when_the_wait_is_over(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed, pauses: Pauses, deferrable: bool
) -> None:
    lake.rollup("hourly")
    pauses.then(feed.flush, lambda: lake.refresh("hourly"))
    with dag:
        (
            LakeTSDurabilitySensor(task_id="feed", table="metrics", deferrable=deferrable)
            >> LakeTSRollupFreshSensor(
                task_id="rollup", rollup="hourly", max_lag=timedelta(hours=1), deferrable=deferrable
            )
            >> LakeTSRetentionOperator(task_id="drop", table="metrics")
        )

    done = run(dag)

    assert (done.state, deferrals(done)) == ("success", 2 if deferrable else 0)
    assert len(done.result("drop")["dropped"]) == 4


@pytest.mark.parametrize("deferrable", [True, False], ids=["in the triggerer", "in a worker"])
@pytest.mark.parametrize(("soft_fail", "state"), [(False, "failed"), (True, "skipped")])
def test_sensor_ends_at_its_timeout(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed, deferrable: bool, soft_fail: bool, state: str
) -> None:
    with dag:
        LakeTSDurabilitySensor(
            task_id="feed", table="metrics", timeout=0, soft_fail=soft_fail, deferrable=deferrable
        )

    done = run(dag)

    assert (done.states["feed"], done.tries["feed"]) == (state, 1)


def test_execution_timeout_ends_a_check_of_a_rescheduled_sensor(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed, lab: Lab
) -> None:
    instead_of_explaining(lab, "PERFORM pg_sleep(60);")
    limit = timedelta(seconds=0.5)
    with dag:
        LakeTSDurabilitySensor(
            task_id="x", chunks=lake.chunk(COLD), mode="reschedule", execution_timeout=limit, retries=0
        )

    done = run(dag)

    assert (done.state, type(done.errors[0]).__name__) == ("failed", "AirflowTaskTimeout")
    assert lab.sleepers() == 0


def test_deferred_sensor_tells_what_it_waited_for_in_vain(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed
) -> None:
    with dag:
        LakeTSDurabilitySensor(task_id="feed", chunks=lake.chunk(COLD), timeout=0, deferrable=True)

    done = run(dag)

    assert told(done) == (
        f"Timed out after 0:00:00.\n{lake.chunk(COLD)}: changes to it are not known to be flushed yet"
    )


# Link and secrets


def test_link_leads_to_the_project_also_after_a_wait_without_another_login(
    dag: DAG,
    run: RunDag,
    lake: Stage,
    lab: Lab,
    feed: HandFeed,
    pauses: Pauses,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extra = {"sslmode": "disable", "project": "weather"}
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(extra=extra))
    monkeypatch.setenv("DATABRICKS_HOST", "https://my.cloud.databricks.com/")
    pauses.then(feed.flush)
    with dag:
        LakeTSDurabilitySensor(task_id="feed", table="metrics", deferrable=True)

    done = run(dag)

    page = "https://my.cloud.databricks.com/lakebase/projects/weather"
    assert (deferrals(done), xcom(done, "feed", "lakebase_project_page")) == (1, page)


def test_no_link_is_no_failure(
    dag: DAG, run: RunDag, lake: Stage, feed: HandFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_HOST", raising=False)
    feed.flush()
    with dag:
        tier_all(lake)

    done = run(dag)

    assert (done.state, xcom(done, "tier", "lakebase_project_page")) == ("success", "")


def test_no_password_shows_anywhere_on_the_way_to_the_triggerer_and_back(
    dag: DAG,
    run: RunDag,
    lake: Stage,
    lab: Lab,
    feed: HandFeed,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = "very-5ecret-0a1b"
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(password=secret))
    with dag:
        tier_all(lake, wait_timeout=0)

    done = run(dag)

    (deferral,) = [error for error in done.errors if type(error).__name__ == "TaskDeferred"]
    output = "".join(capfd.readouterr()) + caplog.text + told(done) + repr(deferral.trigger)  # type: ignore[attr-defined]
    assert lake.chunk(COLD) in output  # it is the log that was searched
    assert secret not in output
