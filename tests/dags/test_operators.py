"""The operators inside Airflow: mapping, retries, permanent failures, kill and timeout."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from airflow_provider_lakets.exceptions import LakeTSContendedError, LakeTSPartialFailureError
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.sdk import DAG

    from tests.dags.conftest import Run
    from tests.lab import Lab

    RunDag = Callable[[DAG], Run]


@pytest.fixture
def engine() -> str:
    """Use only our engine; tests of the hook and the sample DAGs cover LakeTS 0.1.x."""
    return "ours"


def summary(results: list[dict[str, Any]]) -> dict[str, str]:
    return {result["name"]: result["outcome"] for result in results}


def told(run: Run) -> str:
    """Return the message of the last failed try on one line."""
    return " ".join(str(run.errors[-1]).split())


# Results and retries


def test_a_second_run_finds_nothing_to_do(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.table("metrics")
    with dag:
        LakeTSPartitionOperator(task_id="make", future_count=9)

    first, second = run(dag), run(dag)

    assert summary(first.result("make")) == {"public.metrics": "created"}
    assert summary(second.result("make")) == {"public.metrics": "unchanged"}


def test_a_range_may_come_from_a_template(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.table("metrics")
    dag.params = {"start": "2024-02-28", "end": "2024-03-01T00:00:00Z"}  # type: ignore[assignment]
    with dag:
        LakeTSPartitionOperator(
            task_id="make",
            tables="metrics",
            range_start="{{ params.start }}",
            range_end="{{ params.end }}",
        )

    (result,) = run(dag).result("make")

    assert result["created"] == ["public.metrics_20240228_000000", "public.metrics_20240229_000000"]


def test_contention_is_tried_again_by_airflow(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.conn.execute("CREATE SEQUENCE tried")
    lab.conn.execute("DROP FUNCTION lakets.tier_chunk")
    lab.conn.execute(  # as often as the hook tries by itself, it is busy
        "CREATE FUNCTION lakets.tier_chunk(p_chunk_name text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        " IF nextval('tried') <= 4 THEN RAISE EXCEPTION 'busy' USING ERRCODE = '55P03'; END IF;"
        " RETURN true; END $$"
    )
    with dag:
        LakeTSTierOperator(task_id="tier", chunks=["public.metrics_20250101_000000"])

    done = run(dag)

    assert (done.state, done.tries["tier"]) == ("success", 2)
    assert isinstance(done.errors[0], LakeTSPartialFailureError)
    assert "public.metrics_20250101_000000: contended" in told(done)


def test_a_rollup_that_fails_fails_the_task_with_the_list(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.table("metrics", days=3)
    lab.rollup("hourly")
    lab.rollup("daily", reads="hourly")
    lab.rollup("apart")
    lab.break_rollup("hourly")
    with dag:
        LakeTSRollupRefreshOperator(task_id="refresh")

    done = run(dag)

    assert failed_at_once(done)  # a retry cannot fix what its table refuses
    outcomes = summary(done.result("refresh"))
    assert outcomes == {"hourly": "failed", "daily": "skipped", "apart": "refreshed"}
    assert "2 of 3 did not succeed" in told(done)


# Permanent failures


def failed_at_once(run: Run) -> bool:
    return run.state == "failed" and set(run.tries.values()) == {1}


@pytest.mark.parametrize(
    "operator",
    [
        lambda: LakeTSPartitionOperator(task_id="x"),
        lambda: LakeTSTierCandidatesOperator(task_id="x"),
        lambda: LakeTSTierOperator(task_id="x", chunks="public.metrics_20250101_000000"),
        lambda: LakeTSRetentionOperator(task_id="x", table="metrics"),
        lambda: LakeTSRollupRefreshOperator(task_id="x"),
    ],
    ids=["partition", "candidates", "tier", "retention", "rollup"],
)
def test_a_database_without_lakets_fails_at_once_and_says_what_to_do(
    dag: DAG,
    run: RunDag,
    postgres_only: None,
    operator: Callable[[], Any],
) -> None:
    with dag:
        operator()

    done = run(dag)

    assert failed_at_once(done)
    assert "Run `lakets install`" in told(done)


@pytest.fixture
def postgres_only(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Define lakebase_default for a database without LakeTS."""
    from tests.lab import Lab

    lab = Lab(empty_database, "none")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection())
    yield
    lab.conn.close()


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (
            lambda: LakeTSPartitionOperator(task_id="x", tables=["public.metric"]),
            "'public.metric' is not a ChronoTable",
        ),
        (
            lambda: LakeTSTierCandidatesOperator(task_id="x", tables=["other.metrics"]),
            "'other.metrics' is not a ChronoTable",
        ),
        (lambda: LakeTSRetentionOperator(task_id="x", table="metric"), "'metric' is not a ChronoTable"),
        (lambda: LakeTSRollupRefreshOperator(task_id="x", rollup="daly"), "RollUp 'daly' does not exist"),
    ],
    ids=["partition", "candidates", "retention", "rollup"],
)
def test_an_unknown_name_fails_at_once_with_the_known_ones(
    dag: DAG, run: RunDag, lab: Lab, operator: Callable[[], Any], words: str
) -> None:
    lab.table("metrics")
    lab.rollup("daily")
    with dag:
        operator()

    done = run(dag)

    assert failed_at_once(done)
    assert words in told(done)
    assert "there are: public.metrics" in told(done) or "there are: daily" in told(done)


def test_chunks_that_are_refused_fail_at_once_after_the_others_are_done(
    dag: DAG, run: RunDag, lab: Lab
) -> None:
    lab.synced(days=8)
    lab.conn.execute("SELECT lakets.execute_retention('metrics', p_force => true)")
    lab.flush()
    dropped, *_, good = lab.old_chunks()
    with dag:
        LakeTSTierOperator(task_id="tier", chunks=[dropped, "public.no_20250101_000000", good])

    done = run(dag)

    assert failed_at_once(done)
    assert "already dropped" in told(done)
    assert summary(done.result("tier")) == {
        dropped: "failed",
        "public.no_20250101_000000": "failed",
        good: "tiered",
    }


def test_a_connection_that_is_not_defined_fails_at_once(dag: DAG, run: RunDag) -> None:
    with dag:
        LakeTSPartitionOperator(task_id="make", lakebase_conn_id="nowhere")

    done = run(dag)

    assert failed_at_once(done)
    assert "'nowhere' is not defined" in told(done)


def test_a_role_without_rights_fails_at_once_and_is_named(
    dag: DAG, run: RunDag, lab: Lab, clerk: str
) -> None:
    lab.table("metrics")
    with dag:
        LakeTSPartitionOperator(task_id="make", future_count=9)

    done = run(dag)

    assert failed_at_once(done)
    assert clerk in told(done)
    assert "metrics" in told(done)


# Mapping


def candidates(lab: Lab) -> int:
    lab.synced(days=8)
    lab.flush()
    return len(lab.hook().tier_candidates())


def test_batches_hold_as_many_chunks_as_asked(dag: DAG, run: RunDag, lab: Lab) -> None:
    count = candidates(lab)
    with dag:
        LakeTSTierCandidatesOperator(task_id="find", batch_size=4)

    batches = run(dag).result("find")

    assert [len(batch) for batch in batches] == [4, count - 4]


@pytest.mark.parametrize("limit", ["argument", "configuration"])
def test_batches_grow_rather_than_become_too_many_to_map(
    dag: DAG, run: RunDag, lab: Lab, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    count = candidates(lab)
    if limit == "configuration":
        monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    with dag:
        LakeTSTierCandidatesOperator(
            task_id="find", batch_size=1, max_batches=2 if limit == "argument" else None
        )

    batches = run(dag).result("find")

    assert len(batches) == 2
    assert sum(len(batch) for batch in batches) == count


def test_a_mapped_task_is_named_after_its_chunks_by_itself(dag: DAG, run: RunDag, lab: Lab) -> None:
    candidates(lab)
    first, second, third, *_ = lab.old_chunks()
    with dag:
        LakeTSTierOperator.partial(task_id="tier").expand(chunks=[[first, second, third], [first]])

    done = run(dag)

    assert done.names["tier"] == [f"{first} and 2 more", first]


def test_retention_takes_schema_and_table_apart(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.table("metrics", schema="other", days=8)
    lab.conn.execute("SELECT lakets.add_retention_policy('metrics', '4 days', 'other')")
    with dag:
        LakeTSRetentionOperator(task_id="drop", table="metrics", schema="other")

    result = run(dag).result("drop")

    assert (result["name"], result["outcome"]) == ("other.metrics", "dropped")


@pytest.mark.parametrize(("force", "left"), [(False, 8), (True, 4)], ids=["not by default", "when asked"])
def test_retention_drops_what_is_not_durable_only_by_force(
    dag: DAG, run: RunDag, lab: Lab, force: bool, left: int
) -> None:
    lab.synced(days=8)
    arguments = {"force": True} if force else {}
    with dag:
        LakeTSRetentionOperator(task_id="drop", table="metrics", **arguments)  # type: ignore[arg-type]

    done = run(dag)

    assert done.state == "success"
    assert lab.value("SELECT count(*) FROM metrics") in (left, left + 1)  # as the day's hour has it


# Kill and timeout


@pytest.fixture
def asleep(lab: Lab) -> Iterator[Lab]:
    """A table whose partition job sleeps; afterwards the test's own signal handler is back."""
    lab.table("metrics")
    lab.conn.execute("ALTER FUNCTION lakets._ensure_partitions RENAME TO _was")
    lab.conn.execute(
        "CREATE FUNCTION lakets._ensure_partitions"
        "(p_chronotable_id int, p_past_count int, p_future_count int) RETURNS int"
        " LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN 0; END $$"
    )
    handler = signal.getsignal(signal.SIGTERM)
    yield lab
    signal.signal(signal.SIGTERM, handler)


def test_killing_the_task_cancels_its_statement(dag: DAG, run: RunDag, asleep: Lab) -> None:
    with dag:
        LakeTSPartitionOperator(task_id="make", retries=0)

    def kill() -> None:
        asleep.wait_until_asleep()
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=kill)
    killer.start()
    done = run(dag)
    killer.join()

    assert done.state == "failed"
    assert "cancel" in told(done)
    assert asleep.sleepers() == 0


def test_an_execution_timeout_leaves_no_statement_behind(dag: DAG, run: RunDag, asleep: Lab) -> None:
    with dag:
        LakeTSPartitionOperator(task_id="make", retries=0, execution_timeout=timedelta(seconds=0.5))

    done = run(dag)

    assert done.state == "failed"
    assert "Timeout" in type(done.errors[0]).__name__
    assert asleep.sleepers() == 0


# What the log of a failed task shows


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (lambda: LakeTSPartitionOperator(task_id="x", tables="metric"), ["is not a ChronoTable", "Name it"]),
        (lambda: LakeTSPartitionOperator(task_id="x", lakebase_conn_id="nowhere"), ["Define it"]),
        (lambda: LakeTSTierOperator(task_id="x", chunks=["a.b_20250101_000000"]), ["does not exist"]),
        (lambda: LakeTSRetentionOperator(task_id="x", table=""), ["names nothing", "Correct the template"]),
    ],
    ids=["table", "connection", "chunk", "nothing"],
)
def test_an_error_is_short_lines_that_end_with_what_to_do_and_has_no_cause(
    dag: DAG, run: RunDag, lab: Lab, operator: Callable[[], Any], words: list[str]
) -> None:
    lab.table("metrics")
    with dag:
        operator()

    (error,) = run(dag).errors

    text = str(error)
    assert max(map(len, text.splitlines())) < 100
    assert [word for word in words if word not in text] == []
    assert (error.__cause__, error.__suppress_context__) == (None, True)


def test_an_error_that_a_retry_may_cure_has_no_cause_either(dag: DAG, run: RunDag, lab: Lab) -> None:
    with psycopg.connect(lab.conninfo) as holder:
        holder.execute("LOCK TABLE lakets._chronotable_registry IN ACCESS EXCLUSIVE MODE")
        with dag:
            LakeTSPartitionOperator(task_id="x", retries=0)
        (error,) = run(dag).errors

    assert isinstance(error, LakeTSContendedError)
    assert max(map(len, str(error).splitlines())) < 100
    assert (error.__cause__, error.__suppress_context__) == (None, True)


def test_what_went_wrong_is_told_once_and_of_many_the_first(dag: DAG, run: RunDag, lab: Lab) -> None:
    chunks = [f"public.none_202501{day:02}_000000" for day in range(1, 26)]
    with dag:
        LakeTSTierOperator(task_id="x", chunks=chunks)

    (error,) = run(dag).errors

    text = str(error)
    assert text.startswith("25 of 25 did not succeed")
    assert all(text.count(f"{chunk}: failed") == 1 for chunk in chunks[:20])
    assert text.endswith("... and 5 more: see the result of the task (XCom).")


# Secrets


def test_no_password_shows_anywhere(
    dag: DAG,
    run: RunDag,
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = "very-5ecret-0a1b"
    lab.table("metrics")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(password=secret))
    with dag:
        LakeTSPartitionOperator(task_id="fine")
        LakeTSPartitionOperator(task_id="wrong", tables="nothing")

    done = run(dag)

    output = "".join(capfd.readouterr()) + caplog.text + told(done) + str(done.results("fine"))
    assert "public.metrics: unchanged" in output  # it is the log that was searched
    assert secret not in output
