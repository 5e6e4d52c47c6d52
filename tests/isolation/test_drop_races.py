"""A ChronoTable is dropped during jobs: nothing deadlocks, and every error is clear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Gate, Session
    from tests.stage import HandFeed, Stage

    Sessions = Callable[[str], Session]
    Gates = Callable[..., Gate]

DROP = "SELECT lakets.drop_chronotable('metrics')"
ENSURE = (
    "SELECT lakets._ensure_partitions(id, p_range_start => '2024-02-01+00', p_range_end => '2024-02-04+00')"
    " FROM lakets._chronotable_registry"
)
SYNC = "SELECT lakets.enable_sync('metrics')"
CANDIDATES = "SELECT count(*) FROM lakets._get_chunks_to_tier('metrics')"
TIER = "SELECT lakets.tier_chunk('public.metrics_20240103_000000')"
REFRESH = "SELECT lakets.refresh_rollup('hourly', true)"
CREATE_ROLLUP = (
    "SELECT lakets.create_rollup('other', $$SELECT lakets.time_bucket('1 hour', at) AS bucket,"
    " sum(value) AS total FROM public.metrics GROUP BY 1$$)"
)


@pytest.fixture
def laden(stage: Stage) -> HandFeed:
    """Make a synced table with two RollUps, one above the other, that tiering has looked at."""
    stage.once(make_laden)
    feed = stage.follow()
    stage.run(CANDIDATES)
    return feed


def make_laden(stage: Stage) -> None:
    stage.make_synced()
    stage.rollup("hourly")
    stage.rollup("daily", reads="hourly", every="1 day")


# drop/job: a refresh marks the RollUps above, tiering looks at the partition; both with rows in
# hand that a drop deletes.
@pytest.mark.parametrize(
    ("call", "function"),
    [(REFRESH, "_take_dirty_buckets"), (TIER, "_lock_chunk"), (CANDIDATES, "_prove")],
    ids=["refresh below another", "tier", "candidates"],
)
def test_a_drop_waits_for_a_job_that_is_at_it(
    stage: Stage, laden: HandFeed, sessions: Sessions, gates: Gates, call: str, function: str
) -> None:
    stage.run("UPDATE metrics SET value = 77 WHERE id = 1")
    laden.flush()
    job, dropper = sessions("job"), sessions("dropper")
    gate = gates(job, function, "after")
    job.start(call)
    job.wait_blocked_by(gate)
    dropper.start(DROP)
    dropper.wait_blocked_by(job)

    gate.open()

    job.finish()
    dropper.finish()
    assert stage.value("SELECT count(*) FROM lakets._chronotable_registry") == 0


# drop/job: the job had looked at the registry before.
@pytest.mark.parametrize("call", [CANDIDATES, TIER], ids=["candidates", "tier"])
def test_who_waits_for_a_drop_is_told_that_the_table_is_gone(
    stage: Stage, sessions: Sessions, call: str
) -> None:
    stage.synced()
    dropper, job = sessions("dropper"), sessions("job")
    dropper.begin()
    dropper.run(DROP)
    job.start(call)
    job.wait_blocked_by(dropper)
    dropper.commit()

    with pytest.raises(psycopg.errors.RaiseException):
        job.finish()


@pytest.mark.parametrize("call", [ENSURE, SYNC], ids=["partition", "sync"])
def test_who_looked_a_table_up_before_its_drop_is_told_that_it_is_gone(
    stage: Stage, laden: HandFeed, sessions: Sessions, gates: Gates, call: str
) -> None:
    dropper, job = sessions("dropper"), sessions("job")
    gate = gates(job, "_lock_maintenance")
    job.start(call)
    job.wait_blocked_by(gate)
    dropper.run(DROP)

    gate.open()

    with pytest.raises(psycopg.errors.RaiseException, match="is no longer a ChronoTable"):
        job.finish()


# drop/create_rollup: the RollUp is not yet to be seen when the drop looks which there are.
def test_a_rollup_made_meanwhile_is_not_left_without_its_table(stage: Stage, sessions: Sessions) -> None:
    stage.table()
    creator, dropper = sessions("creator"), sessions("dropper")
    creator.begin()
    creator.run(CREATE_ROLLUP)
    dropper.start(DROP)
    dropper.wait_blocked_by(creator)
    creator.commit()

    with pytest.raises(psycopg.errors.LockNotAvailable, match="made or dropped meanwhile"):
        dropper.finish()

    dropper.run(DROP)
    assert stage.value("SELECT to_regclass('public._rollup_other')") is None
