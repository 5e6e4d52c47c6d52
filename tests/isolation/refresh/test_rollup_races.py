"""RollUps are created, dropped and tracked again beside refreshes and writes to their source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.isolation.refresh.scene import MANY_CHANGES, REFRESH, change_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Gate, Session
    from tests.stage import Raises, Stage


# refresh/create_rollup, prune/create_rollup


CREATE = (
    "SELECT lakets.create_rollup(%s, $$SELECT lakets.time_bucket('1 hour', at) AS bucket,"
    " sum(value)::bigint AS total, count(*) AS n FROM public.metrics GROUP BY 1$$)"
)


CREATE_ON_HOURLY = (
    "SELECT lakets.create_rollup(%s, $$SELECT lakets.time_bucket('7 days', bucket) AS bucket,"
    " sum(total)::bigint AS total, sum(n)::bigint AS n FROM public._rollup_hourly GROUP BY 1$$, '7 days')"
)


CREATE_STEPS = [
    ("_lock_sources", "after"),
    ("_window_query", "before"),
    ("_recompute", "before"),
    ("_recompute", "after"),
    ("_store_definition", "after"),
    ("_note_refresh", "after"),
]


AT_EACH_STEP_OF_CREATION = pytest.mark.parametrize(
    ("function", "when"), CREATE_STEPS, ids=[f"{w} {f}" for f, w in CREATE_STEPS]
)


@AT_EACH_STEP_OF_CREATION
def test_change_committed_while_a_rollup_is_created_is_not_lost(
    rollups: Stage, writer: Session, refresher: Session, gates: Callable[..., Gate], function: str, when: str
) -> None:
    # The races: T1 was open before the RollUp's snapshot, T2 begins after it, and the refresh of
    # another RollUp would prune what the new one, not registered yet, has still to see.
    writer.begin()
    writer.run("UPDATE metrics SET at = at - interval '2 days' WHERE id = 3")
    gate = gates(refresher, function, when)
    refresher.start(CREATE, "new")
    refresher.wait_blocked_by(gate)
    writer.commit()
    writer.run("INSERT INTO metrics VALUES (10, '2024-01-02 05:00+00', 10)")
    rollups.refresh("hourly")
    rollups.run("SELECT lakets._prune_change_log(reg) FROM lakets._chronotable_registry AS reg")
    gate.open()
    refresher.finish()
    rollups.run("SELECT lakets._prune_change_log(reg) FROM lakets._chronotable_registry AS reg")

    rollups.run("UPDATE lakets._rollup_registry SET refresh_lag = '0'")
    rollups.cascade()

    assert rollups.difference("new") == []


def test_pruning_that_began_before_a_rollup_is_created_is_waited_for(
    rollups: Stage, writer: Session, refresher: Session
) -> None:
    rollups.run(MANY_CHANGES)
    writer.begin()
    writer.run("SELECT lakets.refresh_rollup('hourly', true)")  # prunes at its end
    refresher.start(CREATE, "new")
    refresher.wait_blocked_by(writer)
    writer.run("INSERT INTO metrics VALUES (10, '2024-01-02 05:00+00', 10)")
    writer.commit()
    refresher.finish()

    rollups.refresh("new")

    assert rollups.difference("new") == []


@AT_EACH_STEP_OF_CREATION
def test_change_that_climbs_while_a_rollup_on_a_rollup_is_created_is_not_lost(
    rollups: Stage, writer: Session, refresher: Session, gates: Callable[..., Gate], function: str, when: str
) -> None:
    # The race: a refresh of hourly marks what it did for the RollUps above it, and this one is not
    # there yet.
    gate = gates(refresher, function, when)
    refresher.start(CREATE_ON_HOURLY, "weekly")
    refresher.wait_blocked_by(gate)
    change_all(writer)
    skipped = not rollups.refresh("hourly")
    gate.open()
    refresher.finish()

    rollups.run("UPDATE lakets._rollup_registry SET refresh_lag = '0'")
    rollups.cascade()

    assert skipped
    assert rollups.difference("weekly") == []


def test_rollup_created_in_a_transaction_that_goes_on_writing_misses_nothing(
    rollups: Stage, writer: Session
) -> None:
    # The race: pg_current_snapshot() takes its own transaction for ended once a later one is.
    writer.begin()
    writer.run("INSERT INTO metrics VALUES (10, '2024-01-02 05:00+00', 10)")
    rollups.run("CREATE TABLE elsewhere ()")
    writer.run(CREATE, "new")
    writer.run("INSERT INTO metrics VALUES (11, '2024-01-02 05:00+00', 11)")
    writer.commit()

    rollups.refresh("new")

    assert rollups.difference("new") == []


def test_two_sessions_that_create_the_same_rollup_end_in_one(
    rollups: Stage, writer: Session, refresher: Session, raises: Raises
) -> None:
    writer.begin()
    writer.run(CREATE, "new")
    refresher.start(CREATE, "new")
    refresher.wait_blocked_by(writer)
    writer.commit()

    with raises("P0001", match="already exists"):
        refresher.finish()


# Tracking turned on and off


def test_tracking_turned_on_during_a_refresh_reloads_all_the_same(
    rollups: Stage, writer: Session, refresher: Session, gates: Callable[..., Gate]
) -> None:
    # The race: the refresh, which only looked above the watermark, records that all is absorbed.
    rollups.run("SELECT lakets.disable_rollup_invalidation('hourly')")
    rollups.run("INSERT INTO metrics VALUES (10, '2024-01-01 05:00+00', 10)")
    gate = gates(refresher, "_note_refresh")
    refresher.start(REFRESH, "hourly")
    refresher.wait_blocked_by(gate)
    writer.start("SELECT lakets.enable_rollup_invalidation('hourly')")
    writer.wait_blocked_by(refresher)
    gate.open()
    refresher.finish()
    writer.finish()

    rollups.refresh("hourly")

    assert rollups.difference("hourly") == []


# drop_rollup


def test_drop_waits_for_the_refresh(rollups: Stage, writer: Session, refresher: Session) -> None:
    refresher.begin()
    refresher.run(REFRESH, "daily")
    writer.start("SELECT lakets.drop_rollup('daily')")
    writer.wait_blocked_by(refresher)
    refresher.commit()
    writer.finish()

    assert rollups.column("SELECT name FROM lakets.show_rollups()") == ["hourly"]


def test_refresh_of_a_rollup_that_is_being_dropped_steps_aside(
    rollups: Stage, writer: Session, refresher: Session
) -> None:
    writer.begin()
    writer.run("SELECT lakets.drop_rollup('daily')")

    assert refresher.value(REFRESH, "daily") is False


def test_refresh_passes_over_a_dependant_that_is_being_dropped(
    rollups: Stage, writer: Session, refresher: Session
) -> None:
    # The race: the refresh of hourly marks buckets of daily while daily goes away.
    writer.begin()
    writer.run("SELECT lakets.drop_rollup('daily')")
    refresher.start(REFRESH, "hourly")
    refresher.wait_blocked_by(writer)
    writer.commit()

    assert refresher.finish() == [(True,)]
    assert rollups.difference("hourly") == []


def test_rollup_cannot_be_dropped_under_one_that_is_being_built_on_it(
    rollups: Stage, writer: Session, refresher: Session, raises: Raises
) -> None:
    # The race: drop_rollup looks for dependants before the new one is committed.
    rollups.run("SELECT lakets.drop_rollup('daily')")
    writer.begin()
    writer.run(CREATE_ON_HOURLY, "weekly")
    refresher.start("SELECT lakets.drop_rollup('hourly')")
    refresher.wait_blocked_by(writer)
    writer.commit()

    with raises("P0001", match="weekly"):
        refresher.finish()


def test_drop_and_cascade_in_opposite_order_do_not_deadlock(
    rollups: Stage, writer: Session, refresher: Session
) -> None:
    refresher.begin()
    refresher.run(REFRESH, "hourly")
    writer.start("SELECT lakets.drop_rollup('daily')")
    writer.wait_blocked_by(refresher)
    daily = refresher.value(REFRESH, "daily")
    refresher.commit()
    writer.finish()

    assert daily is False
    assert rollups.difference("hourly") == []
