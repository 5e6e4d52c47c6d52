"""Dry runs of LakeTSHook, with both engines: they report, and change nothing."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab import Lab

START = datetime(2024, 2, 28, tzinfo=timezone.utc)
END = datetime(2024, 3, 1, tzinfo=timezone.utc)

FEBRUARY = ["public.metrics_20240228_000000", "public.metrics_20240229_000000"]


def registries(lab: Lab) -> dict[str, list[Any]]:
    """Return what a job could change: the registries and the relations."""
    queries = {
        name: f"SELECT r::text FROM lakets.{name} AS r ORDER BY id"
        for name in ("_chunk_metadata", "_policy_registry", "_rollup_registry", "_rollup_invalidation_log")
    }
    queries["relations"] = "SELECT oid::text FROM pg_class WHERE oid >= 16384 ORDER BY oid"
    if lab.engine == "ours":
        queries["proofs"] = "SELECT p::text FROM lakets._feed_proof AS p ORDER BY 1"
    return {name: lab.values(query) for name, query in queries.items()}


def test_partitions_are_planned_and_not_made(lab: Lab) -> None:
    lab.table("metrics")
    before = registries(lab)

    (plan,) = lab.hook().plan_partitions(range_start=START, range_end=END)

    assert (plan.name, plan.outcome, plan.planned) == ("public.metrics", "planned", FEBRUARY)
    assert registries(lab) == before


def test_plan_of_partitions_is_what_the_job_then_makes(lab: Lab) -> None:
    lab.table("metrics")
    (plan,) = lab.hook().plan_partitions(past_count=3, future_count=6)

    (result,) = lab.hook().partition(past_count=3, future_count=6)

    assert plan.planned == result.created != []
    (again,) = lab.hook().plan_partitions(past_count=3, future_count=6)
    assert (again.outcome, again.planned) == ("unchanged", [])


def test_tiering_is_planned_and_nothing_is_flagged(lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    before = registries(lab)

    chunks = [candidate.chunk_name for candidate in lab.hook().plan_candidates()]
    plans = lab.hook().plan_tiering(chunks)

    assert chunks == lab.old_chunks()[: len(chunks)] != []
    assert [(plan.name, plan.outcome, plan.planned) for plan in plans] == [
        (chunk, "planned", [chunk]) for chunk in chunks
    ]
    assert registries(lab) == before


def test_plan_of_tiering_says_why_a_chunk_would_be_deferred(lab: Lab) -> None:
    lab.synced(days=8)  # no feed

    (plan,) = lab.hook().plan_tiering(lab.old_chunks()[:1])

    assert (plan.outcome, plan.planned) == ("deferred", [])
    assert plan.detail == lab.hook().tier(lab.old_chunks()[:1])[0].detail


def test_plan_of_tiering_goes_on_after_a_chunk_that_does_not_exist(lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    good = lab.old_chunks()[0]

    plans = lab.hook().plan_tiering(["public.no_20240101_000000", good])

    assert [plan.outcome for plan in plans] == ["failed", "planned"]


def test_retention_is_planned_with_what_stays_and_nothing_is_dropped(lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    hook = lab.hook()
    ready = hook.tier_candidates()[0].chunk_name
    if lab.engine == "0.1":
        hook.tier_chunk(ready)  # in 0.1.x the flag is the proof
    before = registries(lab)

    plan = hook.plan_retention("metrics")

    assert plan.outcome == "planned"
    assert plan.planned[0] == ready
    assert registries(lab) == before
    assert hook.retain("metrics").dropped == plan.planned


def test_plan_of_retention_says_why_chunks_stay_unless_forced(lab: Lab) -> None:
    lab.synced(days=8)  # no feed

    plan = lab.hook().plan_retention("metrics")
    forced = lab.hook().plan_retention("metrics", force=True)

    assert (plan.outcome, plan.planned) == ("deferred", [])
    assert "not" in plan.deferred[0].reason
    assert forced.deferred == []
    assert forced.planned == [stays.chunk for stays in plan.deferred]
    assert lab.value("SELECT count(*) FROM metrics") == 8


def test_rollups_are_planned_in_the_order_of_their_refresh(lab: Lab) -> None:
    lab.table("metrics", days=3)
    lab.rollup("hourly")
    lab.rollup("a_daily", reads="hourly")
    before = registries(lab)

    plans = lab.hook().plan_refresh()

    assert [(plan.name, plan.outcome) for plan in plans] == [("hourly", "planned"), ("a_daily", "planned")]
    assert "reads hourly" in str(plans[1].detail)
    assert registries(lab) == before


def test_plan_leaves_out_a_rollup_whose_lag_has_not_passed_unless_forced(lab: Lab) -> None:
    lab.table("metrics", days=3)
    lab.rollup("hourly", lag="1 hour")
    lab.conn.execute("UPDATE lakets._rollup_registry SET last_refreshed_at = now()")

    (plan,) = lab.hook().plan_refresh()
    (forced,) = lab.hook().plan_refresh(force=True)

    assert (plan.outcome, forced.outcome) == ("unchanged", "planned")
    assert "refresh_lag" in str(plan.detail)


def test_plan_of_a_range_counts_its_buckets_and_marks_none(lab: Lab) -> None:
    lab.table("metrics", days=3)
    lab.rollup("hourly")
    before = registries(lab)

    (plan,) = lab.hook().plan_refresh(start=START, end=START + timedelta(hours=6))

    assert (plan.outcome, str(plan.detail).split(" from ")[0]) == ("planned", "6 bucket(s)")
    assert registries(lab) == before
