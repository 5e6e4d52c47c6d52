"""Lakebase keeps a limited history of the jobs for each table and RollUp, whoever ran them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from airflow_provider_lakets.exceptions import LakeTSArgumentError

if TYPE_CHECKING:
    from tests.lab import Lab

pytestmark = pytest.mark.parametrize("engine", ["ours"])


@pytest.fixture
def world(lab: Lab) -> Lab:
    """Hold twelve days of a synced table with policies, another table, and a RollUp."""
    lab.synced("metrics", days=12)
    lab.table("other", days=2)
    lab.rollup("hourly")
    lab.flush()
    return lab


def history(world: Lab, job: str | None = None) -> list[tuple[str, str | None, str, dict[str, int]]]:
    return [(one.job, one.relation, one.outcome, one.counts) for one in world.hook().job_history(job)]


def test_each_job_leaves_a_row_for_each_thing_that_it_did_something_to(world: Lab) -> None:
    hook = world.hook()
    hook.partition(["public.metrics", "public.other"], future_count=9)
    hook.refresh()
    chunks = [one.chunk_name for one in hook.tier_candidates()]
    hook.tier(chunks)
    (retained,) = hook.retain_all(["public.metrics"])

    runs = {(job, relation): (outcome, counts) for job, relation, outcome, counts in history(world)}

    assert {job for job, _ in runs} == {"partitions", "tier", "retain", "refresh"}
    assert runs["partitions", "public.metrics"][1]["created"] > 0
    assert runs["tier", "public.metrics"] == ("tiered", {"tiered": len(chunks)})
    assert retained.dropped
    assert runs["retain", "public.metrics"] == ("dropped", {"dropped": len(retained.dropped)})
    assert hook.job_history("retain")[0].bytes == retained.bytes


def test_the_worst_outcome_and_its_reason_stand_for_a_table(world: Lab) -> None:
    hook = world.hook()
    (*_, newest) = [one.chunk_name for one in hook.tier_candidates()]
    world.conn.execute("UPDATE metrics SET value = value + 1")  # which the feed has not flushed
    (deferred, failed) = hook.tier([newest, "no_such_chunk"])

    assert (deferred.outcome, failed.outcome) == ("deferred", "failed")
    assert sorted((one.relation, one.outcome) for one in hook.job_history("tier") if one.relation) == [
        ("public.metrics", "deferred")
    ]
    (of_none,) = [one for one in hook.job_history("tier") if one.relation is None]
    assert of_none.outcome == "failed"
    assert "no_such_chunk" in (of_none.detail or "")


def test_the_reason_is_that_of_the_worst_outcome(world: Lab) -> None:
    world.conn.execute(
        "SELECT lakets._note_job_run('retain', now(), 1, %s)",
        [
            Jsonb(
                [
                    {"name": "public.metrics", "outcome": outcome, "detail": detail}
                    for outcome, detail in (
                        ("dropped", None),
                        ("contended", "z: locked"),
                        ("failed", "a: broken"),
                        ("skipped", "m: not tried"),
                    )
                ]
            )
        ],
    )

    (found,) = world.hook().job_history("retain")

    assert (found.outcome, found.detail) == ("failed", "a: broken")


def test_a_run_with_nothing_to_do_leaves_one_row(world: Lab) -> None:
    hook = world.hook()
    hook.partition()
    hook.partition()

    assert history(world, "partitions")[0] == ("partitions", None, "unchanged", {})


def test_the_runner_is_the_session(world: Lab) -> None:
    world.hook(application_name="nightly").partition()

    assert {one.runner for one in world.hook().job_history()} == {"nightly"}


def test_one_table_can_be_asked_for(world: Lab) -> None:
    world.hook().partition(["public.metrics", "public.other"], future_count=9)

    (found,) = world.hook().job_history(relation="public.other")

    assert (found.job, found.relation) == ("partitions", "public.other")


@pytest.mark.parametrize("arguments", [{"job": "vacuum"}, {"limit": 0}])
def test_a_question_that_means_nothing_is_refused(world: Lab, arguments: dict[str, Any]) -> None:
    with pytest.raises(LakeTSArgumentError):
        world.hook().job_history(**arguments)


def test_a_note_that_cannot_be_written_fails_no_job(world: Lab) -> None:
    world.conn.execute("ALTER TABLE lakets._job_run ADD CHECK (job = 'nothing')")

    (result, *_) = world.hook().partition(["public.metrics"], future_count=9)

    assert result.outcome == "created"
    assert history(world) == []


def test_it_does_not_grow_without_end(world: Lab) -> None:
    world.conn.execute(
        "INSERT INTO lakets._job_run (job, started_at, seconds, outcome)"
        " SELECT 'refresh', now() - interval '91 days', 1, 'old' FROM generate_series(1, 10)"
    )
    world.conn.execute(
        "INSERT INTO lakets._job_run (job, started_at, seconds, outcome)"
        " SELECT 'refresh', now(), 1, 'new' FROM generate_series(1, 10200)"
    )
    hook = world.hook()
    with hook.session():
        for _ in range(50):
            hook.refresh()

    (left,) = (
        world.conn.execute("SELECT count(*) FROM lakets._job_run WHERE job = 'refresh'").fetchone() or ()
    )
    assert 10_000 <= left <= 10_060
    assert not world.conn.execute("SELECT FROM lakets._job_run WHERE outcome = 'old'").fetchall()


def test_metrics_tell_when_each_job_ran_and_what_went_wrong(lab: Lab) -> None:
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    hook = lab.hook()
    hook.partition(["public.metrics"])
    lab.break_rollup("hourly")
    hook.refresh()

    gauges = {(one.metric_name, one.labels.get("job")): one.metric_value for one in hook.lakets_metrics()}

    last = lab.value(
        "SELECT extract(epoch FROM max(started_at))::float8 FROM lakets._job_run WHERE job = 'refresh'"
    )
    assert gauges["lakets_job_last_run_timestamp_seconds", "refresh"] == last
    assert gauges["lakets_job_problems_1d", "refresh"] == 1
    assert gauges["lakets_job_problems_1d", "partitions"] == 0
    assert ("lakets_job_problems_1d", "tier") not in gauges  # it never ran
