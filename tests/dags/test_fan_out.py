"""Fan-out of tiering: a limited number of mapped tasks, one login each, and one summary."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.operators.summary import LakeTSSummaryOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from tests.dags.conftest import Run
    from tests.lab import Lab
    from tests.pauses import Pauses
    from tests.stage import Stage

    RunDag = Callable[..., Run]


@pytest.fixture
def engine() -> str:
    """Use only our engine; tests of the hook cover the differences of LakeTS 0.1.x."""
    return "ours"


def fan_out(batch_size: int = 2, tables: Any = None, **arguments: Any) -> None:
    """Create the tasks of the sample DAG."""
    candidates = LakeTSTierCandidatesOperator(task_id="candidates", batch_size=batch_size, tables=tables)
    tier = LakeTSTierOperator.partial(task_id="tier", **arguments).expand(chunks=candidates.output)
    LakeTSSummaryOperator(task_id="summary", given=candidates.output, results=tier.output)


def told(run: Run) -> str:
    """Return the message of the last failed try on one line."""
    return " ".join(str(run.errors[-1]).split())


def test_the_summary_counts_what_all_mapped_tasks_flagged(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    with dag:
        fan_out()

    done = run(dag)

    flagged = lab.value("SELECT count(*) FROM lakets._chunk_metadata WHERE status = 'tiered'")
    assert len(done.results("tier")) > 1
    assert done.result("summary") == {"counts": {"tiered": flagged}, "reasons": []}


def test_given_tables_that_do_not_exist_are_left_to_the_summary(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.synced(days=8)
    lab.synced("old", days=5)
    lab.flush()
    lab.conn.execute("DROP TABLE old")
    with dag:
        fan_out(tables=["nothing", "metrics", "old"])
    chunks = [one.chunk_name for one in lab.hook().plan_candidates(["metrics"])]

    done = run(dag)

    assert done.states == {"candidates": "success", "tier": "success", "summary": "failed"}
    summary = done.result("summary")
    assert set(
        lab.values("SELECT status FROM lakets._chunk_metadata WHERE chunk_name = ANY (%s)", chunks)
    ) == {"tiered"}
    assert summary["counts"] == {"tiered": len(chunks), "failed": 2}
    assert {name: why["reason"] for why in summary["reasons"] for name in why["names"]}.keys() == {
        "nothing",
        "public.old",
    }
    assert "is not a ChronoTable" in told(done)
    assert "no longer exists" in told(done)


def test_wrong_table_fails_the_list_if_no_summary_would_report_it(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    with dag:
        candidates = LakeTSTierCandidatesOperator(task_id="candidates", tables=["nothing", "metrics"])
        LakeTSTierOperator.partial(task_id="tier").expand(chunks=candidates.output)

    done = run(dag)

    assert done.states == {"candidates": "failed", "tier": "upstream_failed"}
    assert "'nothing' is not a ChronoTable" in told(done)
    assert "no summary directly follows" in told(done)


def test_list_of_wrong_tables_only_fails_at_once(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.synced(days=8)
    with dag:
        fan_out(tables=["nothing", "none"])

    done = run(dag)

    assert (done.states["candidates"], done.tries["candidates"]) == ("failed", 1)
    assert "'nothing' is not a ChronoTable" in str(done.errors[0])
    assert "'none' is not a ChronoTable" in str(done.errors[0])


def test_the_summary_says_why_chunks_are_deferred(dag: DAG, run: RunDag, lake: Stage) -> None:
    feed = lake.synced()
    lake.run("SELECT lakets._get_chunks_to_tier('metrics')")
    lake.run("INSERT INTO metrics VALUES (8, %s, 8), (9, %s, 9)", lake.at(1, 1), lake.at(3, 1))
    with dag:
        fan_out()

    done = run(dag)

    assert (done.state, feed.flushed) == ("success", 0)
    assert done.result("summary") == {
        "counts": {"deferred": 2, "tiered": 2},
        "reasons": [
            {
                "outcome": "deferred",
                "reason": "changes to it are not known to be flushed yet",
                "count": 2,
                "names": [lake.chunk(1), lake.chunk(3)],
            }
        ],
    }


def broken(lab: Lab, condition: str, code: str) -> None:
    """Make tier_chunk fail for some chunks."""
    lab.conn.execute("ALTER FUNCTION lakets.tier_chunk RENAME TO _tier_chunk")
    lab.conn.execute(
        "CREATE FUNCTION lakets.tier_chunk(p_chunk_name text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        f" IF {condition} THEN RAISE EXCEPTION 'no % today', p_chunk_name USING ERRCODE = '{code}'; END IF;"
        " RETURN lakets._tier_chunk(p_chunk_name); END $$".encode()
    )


@pytest.mark.parametrize(("code", "outcome"), [("55P03", "contended"), ("22023", "failed")])
def test_the_summary_tells_what_failed_and_fails_the_run_although_it_is_its_only_end(
    dag: DAG, run: RunDag, lab: Lab, code: str, outcome: str
) -> None:
    lab.synced(days=8)
    lab.flush()
    first, *_ = lab.old_chunks()
    broken(lab, f"p_chunk_name = '{first}'", code)
    with dag:
        fan_out(retries=0)

    done = run(dag)

    assert (done.state, done.states["summary"], done.tries["summary"]) == ("failed", "failed", 1)
    summary = done.result("summary")
    assert summary["counts"][outcome] == 1
    assert summary["counts"]["tiered"] >= 3
    assert [(why["outcome"], why["names"]) for why in summary["reasons"]] == [(outcome, [first])]
    assert first in told(done)


def test_failures_that_differ_in_the_chunk_only_are_one_reason(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    broken(lab, "true", "22023")
    with dag:
        fan_out(retries=0)

    summary = run(dag).result("summary")

    (why,) = summary["reasons"]
    assert (why["count"], why["names"]) == (summary["counts"]["failed"], lab.old_chunks()[: why["count"]])


def test_a_task_that_waited_in_vain_fails_the_run(dag: DAG, run: RunDag, lake: Stage, pauses: Pauses) -> None:
    lake.synced()
    lake.run("SELECT lakets._get_chunks_to_tier('metrics')")
    lake.run("INSERT INTO metrics VALUES (9, %s, 9)", lake.at(1, 1))
    with dag:
        fan_out(deferrable=True, wait_timeout=0, retries=0)

    done = run(dag)

    assert done.state == "failed"
    assert "1 task(s) failed" in told(done)
    assert done.result("summary")["counts"] == {"deferred": 1, "tiered": 3}


def test_chunks_of_a_task_that_left_no_result_are_lost(
    dag: DAG, run: RunDag, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.synced(days=8)
    lab.flush()
    first, *_ = lab.old_chunks()

    def die(task: LakeTSTierOperator, context: Any) -> None:
        if first in task.chunks:
            raise RuntimeError("the worker is gone")
        LakeTSTierOperator.execute(task, context)

    monkeypatch.setattr(Frail, "execute", die)
    with dag:
        candidates = LakeTSTierCandidatesOperator(task_id="candidates", batch_size=2)
        tier = Frail.partial(task_id="tier", retries=0).expand(chunks=candidates.output)
        LakeTSSummaryOperator(task_id="summary", given=candidates.output, results=tier.output)

    done = run(dag)

    assert done.state == "failed"
    reasons = {why["reason"]: why["count"] for why in done.result("summary")["reasons"]}
    assert reasons["its task ended without a result"] >= 2


class Frail(LakeTSTierOperator):
    """An operator that may be killed."""


def test_nothing_due_skips_all_and_the_run_is_a_success(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.synced(days=8)  # no feed
    with dag:
        fan_out()

    done = run(dag)

    assert done.state == "success"
    assert done.states == {"candidates": "success", "tier": "skipped", "summary": "skipped"}


def test_the_summary_fails_when_the_candidates_are_not_known(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.conn.execute("DROP SCHEMA lakets CASCADE")
    with dag:
        fan_out()

    done = run(dag)

    assert done.state == "failed"
    assert done.states == {"candidates": "failed", "tier": "upstream_failed", "summary": "failed"}
    assert "ended without a result" in told(done)


def test_a_mapped_task_logs_in_once_for_all_its_chunks(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    logins = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
    with dag:
        LakeTSTierOperator(task_id="tier", chunks=lab.old_chunks()[:5])
    before = lab.value(logins)

    done = run(dag)

    assert len(done.result("tier")) == 5
    assert lab.value(logins) - before == 1


TABLES, CHUNKS = 10, 1000
BATCHES = 100  # as the sample DAG limits them


@pytest.mark.slow
def test_ten_thousand_candidates_are_flagged_by_a_hundred_tasks(
    samples: dict[str, Any], run: RunDag, lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    clock = Clock(record_property)
    for number in range(TABLES):
        table_of_hours(lab, f"metrics_{number}")
    clock.lap("making the chunks")

    done = run(samples["lakets_tiering"])
    clock.lap("tiering, in Airflow's own process and one task after another")

    assert done.state == "success"
    assert done.result("summary")["counts"] == {"tiered": TABLES * CHUNKS}
    assert len(done.results("tier")) == BATCHES
    assert lab.value("SELECT count(*) FROM lakets._chunk_metadata WHERE status = 'tiered'") == TABLES * CHUNKS

    lab.conn.execute("UPDATE lakets._chunk_metadata SET status = 'active' WHERE status = 'tiered'")
    clock.lap("(untiering)")
    chunks = [one.chunk_name for one in lab.hook().tier_candidates()]
    clock.lap("finding them again, by the hook alone")
    assert {result.outcome for result in lab.hook().tier(chunks)} == {"tiered"}
    clock.lap("tiering them again, by the hook alone")


def table_of_hours(lab: Lab, name: str) -> None:
    """Create a synced ChronoTable of old one-hour chunks, each with a flushed row."""
    table_id = lab.table(name)
    lab.conn.execute("SELECT lakets.set_chunk_interval(%s, '1 hour')", [name])
    lab.conn.execute("SELECT lakets.enable_sync(%s)", [name])
    for first in range(0, CHUNKS, 250):  # a transaction can hold only so many locks
        lab.value(
            "SELECT lakets._ensure_partitions(%s, p_range_start => '2020-01-01'::timestamptz + %s * interval"
            " '1 hour', p_range_end => '2020-01-01'::timestamptz + %s * interval '1 hour')",
            table_id,
            first,
            first + 250,
        )
    lab.conn.execute("SELECT lakets.add_tiering_policy(%s, '1 day')", [name])
    lab.conn.execute(
        f'INSERT INTO "{name}"'
        " SELECT '2020-01-01'::timestamptz + hour * interval '1 hour', 'a', 1"
        " FROM generate_series(0, %s - 1) AS hour",
        [CHUNKS],
    )
    lab.flush(name)


class Clock:
    """Print how long each part took."""

    def __init__(self, tell: Callable[[str, object], None]) -> None:
        self._tell = tell
        self._since = time.monotonic()

    def lap(self, what: str) -> None:
        now = time.monotonic()
        self._tell(what, f"{now - self._since:.1f} s")
        logging.getLogger(__name__).warning("%s: %.1f s", what, now - self._since)
        self._since = now
