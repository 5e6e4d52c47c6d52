"""Asset events for what a job changed, and DAGs that are scheduled on them."""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import airflow
import pytest
from airflow.sdk import DAG, Asset, AssetAlias
from packaging.version import Version

from airflow_provider_lakets.assets import ROLLUPS, TIERED, rollup_asset, tiered_asset
from airflow_provider_lakets.operators import _events
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.summary import LakeTSSummaryOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierOperator
from tests.dags.conftest import dagbag_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.dags.conftest import Run
    from tests.lab import Lab
    from tests.pauses import Pauses
    from tests.stage import Stage

    RunDag = Callable[[DAG], Run]

HOURLY, DAILY = (rollup_asset(name).uri for name in ("hourly", "daily"))
METRICS = tiered_asset("metrics").uri

_numbers = itertools.count()

partitioned = pytest.mark.skipif(
    Version(airflow.__version__) < Version("3.2"), reason="Airflow 3.1 has no partition keys"
)


@pytest.fixture
def engine() -> str:
    """Use only our engine; tests of the hook cover the differences of LakeTS 0.1.x."""
    return "ours"


@pytest.fixture
def rolled(lab: Lab) -> Lab:
    """Two days of a table, in an hourly and a daily RollUp; all is refreshed."""
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    lab.rollup("daily", reads="hourly")
    lab.hook().refresh()
    return lab


def write(lab: Lab) -> None:
    lab.conn.execute("INSERT INTO metrics VALUES (now(), 'new', 1)")


def events(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """Return the asset events of a run: URIs and extras, in the order of the URIs."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = (
            select(AssetModel.uri, AssetEvent.extra)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(
                AssetEvent.source_run_id == run._key["run_id"],
                AssetEvent.source_dag_id == run._key["dag_ids"],
            )
            .order_by(AssetModel.uri, AssetEvent.id)
        )
        return [(uri, extra) for uri, extra in session.execute(query)]


def uris(run: Run) -> list[str]:
    return [uri for uri, _ in events(run)]


def emitters(run: Run) -> set[str]:
    """Return the tasks that emitted an asset event of a run."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(AssetEvent.source_task_id).where(AssetEvent.source_run_id == run._key["run_id"])
        return {str(task_id) for task_id in session.scalars(query)}


def partitions(run: Run) -> list[tuple[str, str | None]]:
    """Return the asset events of a run: URIs and partition keys."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = (
            select(AssetModel.uri, AssetEvent.partition_key)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetEvent.source_run_id == run._key["run_id"])
            .order_by(AssetEvent.partition_key)
        )
        return [(uri, key) for uri, key in session.execute(query)]


@pytest.fixture
def waiting(airflow: Any) -> Callable[..., Callable[[], bool]]:
    """Return a function that schedules a DAG on assets and returns a check if it is due."""
    from sqlalchemy import delete, func, select

    def schedule(*on: Any) -> Callable[[], bool]:
        from airflow.models.asset import AssetDagRunQueue
        from airflow.sdk import task
        from airflow.utils.session import create_session

        dag_id = f"reader_{next(_numbers)}"
        with DAG(
            dag_id,
            schedule=list(on),
            start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
            is_paused_upon_creation=False,
        ) as dag:
            task(task_id="read")(lambda: None)()
        module = dagbag_module()
        bag = module.DagBag("/dev/null")
        bag.bag_dag(dag)
        module.sync_bag_to_db(bag, "dags-folder", None)
        with create_session() as session:
            session.execute(delete(AssetDagRunQueue).where(AssetDagRunQueue.target_dag_id == dag_id))

        def is_due() -> bool:
            with create_session() as session:
                count = select(func.count()).where(AssetDagRunQueue.target_dag_id == dag_id)
                return bool(session.scalar(count))

        return is_due

    return schedule


# RollUps


def test_a_rollup_that_changed_has_an_event_with_counts(dag: DAG, run: RunDag, rolled: Lab) -> None:
    write(rolled)
    with dag:
        LakeTSRollupRefreshOperator(task_id="refresh")

    done = run(dag)

    assert uris(done) == [DAILY, HOURLY]
    (_, extra) = events(done)[1]
    assert (extra["rollup"], extra["rows"] >= 1, extra["ms"] >= 0) == ("hourly", True, True)


def test_a_rollup_that_did_not_change_has_none(dag: DAG, run: RunDag, rolled: Lab) -> None:
    with dag:
        LakeTSRollupRefreshOperator(task_id="refresh")

    done = run(dag)

    assert (done.state, events(done)) == ("success", [])


@pytest.mark.parametrize(
    "on", [lambda: rollup_asset("hourly"), lambda: AssetAlias(ROLLUPS)], ids=["the RollUp", "any RollUp"]
)
def test_a_dag_scheduled_on_it_becomes_due(
    dag: DAG, run: RunDag, rolled: Lab, waiting: Callable[..., Callable[[], bool]], on: Callable[[], Any]
) -> None:
    is_due = waiting(on())
    write(rolled)
    with dag:
        LakeTSRollupRefreshOperator(task_id="refresh")

    run(dag)

    assert is_due()


@pytest.mark.parametrize(
    "on",
    [lambda: rollup_asset("weekly"), lambda: rollup_asset("hourly", lakebase_conn_id="other")],
    ids=["another RollUp", "another connection"],
)
def test_a_dag_scheduled_on_something_else_does_not(
    dag: DAG, run: RunDag, rolled: Lab, waiting: Callable[..., Callable[[], bool]], on: Callable[[], Any]
) -> None:
    is_due = waiting(on())
    write(rolled)
    with dag:
        LakeTSRollupRefreshOperator(task_id="refresh")

    run(dag)

    assert not is_due()


def test_what_the_failed_try_refreshed_has_its_event_from_the_retry(
    dag: DAG, run: RunDag, rolled: Lab
) -> None:
    # The daily RollUp fails once: as often as the hook tries by itself.
    write(rolled)
    rolled.conn.execute("CREATE SEQUENCE tried")
    rolled.conn.execute(
        "CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF nextval('public.tried') = 1 THEN RAISE EXCEPTION 'not yet' USING ERRCODE = 'XX000'; END IF;"
        " RETURN NULL; END $$;"
        'CREATE TRIGGER once BEFORE INSERT ON "_rollup_daily" EXECUTE FUNCTION fail_once()'
    )
    with dag:
        LakeTSRollupRefreshOperator(task_id="refresh")

    done = run(dag)

    assert (done.state, done.tries["refresh"], uris(done)) == ("success", 2, [DAILY, HOURLY])


def test_a_task_that_fails_has_no_events(dag: DAG, run: RunDag, rolled: Lab) -> None:
    write(rolled)
    rolled.break_rollup("daily")
    with dag:
        LakeTSRollupRefreshOperator(task_id="refresh", retries=0)

    done = run(dag)

    assert (done.state, events(done)) == ("failed", [])


def test_an_outlet_of_the_author_s_has_its_event_with_the_counts_only_if_it_changed(
    dag: DAG, run: RunDag, rolled: Lab
) -> None:
    write(rolled)
    with dag:
        LakeTSRollupRefreshOperator(
            task_id="refresh",
            rollup="hourly",
            outlets=[rollup_asset("hourly"), rollup_asset("daily"), Asset("x-of-the-author")],
        )

    done = run(dag)

    assert uris(done) == [HOURLY, "x-of-the-author"]
    assert events(done)[0][1]["rollup"] == "hourly"


def test_mapped_tasks_emit_each_their_own(dag: DAG, run: RunDag, rolled: Lab) -> None:
    rolled.rollup("apart")
    write(rolled)
    with dag:
        LakeTSRollupRefreshOperator.partial(task_id="refresh").expand(rollup=["hourly", "apart"])

    done = run(dag)

    assert uris(done) == [rollup_asset("apart").uri, HOURLY]


def test_of_very_many_rollups_those_that_some_dag_names_have_their_event(
    dag: DAG,
    run: RunDag,
    lab: Lab,
    waiting: Callable[..., Callable[[], bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_events, "MOST_EVENTS", 2)
    lab.table("metrics", days=2)
    for name in ("first", "second", "third", "fourth"):  # no other test names them
        lab.rollup(name)
    lab.hook().refresh()
    is_due = waiting(rollup_asset("fourth"))
    write(lab)
    with dag:
        LakeTSRollupRefreshOperator(task_id="refresh", parallelism=1)

    done = run(dag)

    assert len(events(done)) == 2
    assert rollup_asset("fourth").uri in uris(done)
    assert is_due()


# Tiered chunks


def test_newly_tiered_chunks_have_one_event_for_their_table(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    first, second, third, *_ = lab.old_chunks()
    lab.hook().tier([third])
    with dag:
        LakeTSTierOperator(task_id="tier", chunks=[first, second, third])

    done = run(dag)

    ((uri, extra),) = events(done)
    assert (uri, extra["table"], extra["chunks"]) == (METRICS, "public.metrics", 2)
    assert extra["bytes"] > 0
    assert extra["range_start"] < extra["range_end"]


def test_chunks_that_were_tiered_before_have_none(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    lab.hook().tier(lab.old_chunks())
    with dag:
        LakeTSTierOperator(task_id="tier", chunks=lab.old_chunks())

    assert events(run(dag)) == []


def test_mapped_tiering_tells_of_each_batch(
    dag: DAG, run: RunDag, lab: Lab, waiting: Callable[..., Callable[[], bool]]
) -> None:
    lab.synced(days=8)
    lab.flush()
    first, second, third, *_ = lab.old_chunks()
    is_due, is_any_due = waiting(tiered_asset("public.metrics")), waiting(AssetAlias(TIERED))
    with dag:
        LakeTSTierOperator.partial(task_id="tier").expand(chunks=[[first, second], [third]])

    done = run(dag)

    assert sorted(extra["chunks"] for _, extra in events(done)) == [1, 2]
    assert is_due()
    assert is_any_due()


def test_a_summary_has_one_event_of_all_batches_of_a_table(
    dag: DAG, run: RunDag, lab: Lab, waiting: Callable[..., Callable[[], bool]]
) -> None:
    lab.synced(days=8)
    lab.flush()
    first, second, third, *_ = lab.old_chunks()
    is_due, is_any_due = waiting(tiered_asset("public.metrics")), waiting(AssetAlias(TIERED))
    with dag:
        tier = LakeTSTierOperator.partial(task_id="tier").expand(chunks=[[first], [second, third]])
        LakeTSSummaryOperator(task_id="summary", given=[first, second, third], results=tier.output)

    done = run(dag)

    ((uri, extra),) = events(done)
    assert (uri, extra["table"], extra["chunks"]) == (METRICS, "public.metrics", 3)
    spans = "SELECT to_json(min(range_start)), to_json(max(range_end)) FROM lakets._chunk_metadata"
    told = [datetime.fromisoformat(extra[name]) for name in ("range_start", "range_end")]
    (span,) = lab.conn.execute(f"{spans} WHERE chunk_name = ANY (%s)", [[first, second, third]])
    assert told == [datetime.fromisoformat(instant) for instant in span]
    assert (is_due(), is_any_due()) == (True, True)
    assert emitters(done) == {"summary"}


def test_a_task_that_waited_tells_of_what_it_flagged_before_and_after(
    dag: DAG, run: RunDag, lake: Stage, pauses: Pauses
) -> None:
    feed = lake.synced()
    lake.run("SELECT lakets._get_chunks_to_tier('metrics')")
    lake.run("INSERT INTO metrics VALUES (9, %s, 9)", lake.at(1, 1))
    pauses.then(feed.flush)
    with dag:
        LakeTSTierOperator(task_id="tier", chunks=[lake.chunk(day) for day in (1, 2, 3)], deferrable=True)

    done = run(dag)

    assert [(uri, extra["chunks"]) for uri, extra in events(done)] == [(METRICS, 3)]


# Partitions


def tier_in_partitions(lake: Stage) -> LakeTSTierOperator:
    chunks = [lake.chunk(day) for day in (1, 2)]
    return LakeTSTierOperator(
        task_id="tier", chunks=chunks, partitioned=True, outlets=[tiered_asset("metrics")]
    )


@partitioned
def test_each_chunk_is_a_partition_when_asked_to(dag: DAG, run: RunDag, lake: Stage) -> None:
    lake.synced()
    with dag:
        tier_in_partitions(lake)

    done = run(dag)

    assert partitions(done) == [(METRICS, "2024-01-01T00:00:00"), (METRICS, "2024-01-02T00:00:00")]


def test_asking_for_partitions_is_no_failure_where_airflow_has_none(
    dag: DAG, run: RunDag, lake: Stage
) -> None:
    lake.synced()
    with dag:
        tier_in_partitions(lake)

    assert uris(run(dag))[0] == METRICS


def test_partitions_need_an_outlet() -> None:
    with pytest.raises(ValueError, match="partitioned needs the asset among the task's outlets"):
        LakeTSTierOperator(task_id="tier", chunks="public.x", partitioned=True)
