"""Promises 6 to 9: no change is lost between writer and refresh, and neither waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.isolation.refresh.scene import MANY_CHANGES, REFRESH, change_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Gate, Session
    from tests.stage import Raises, Stage


# Where a refresh stops: each gap between two of its statements.
STEPS = [
    ("_lock_sources", "before"),
    ("_take_dirty_buckets", "before"),
    ("_take_dirty_buckets", "after"),
    ("_recompute", "before"),
    ("_recompute", "after"),
    ("_invalidate_dependants", "before"),
    ("_note_refresh", "before"),
    ("_prune_change_log", "before"),
    ("_prune_change_log", "after"),
]
# Nothing reads the topmost RollUp, and it has no log to prune.
STEPS_OF_THE_TOP = [step for step in STEPS if step[0] not in ("_invalidate_dependants", "_prune_change_log")]


AT_EACH_STEP = pytest.mark.parametrize(("function", "when"), STEPS, ids=[f"{w} {f}" for f, w in STEPS])


# writer/refresh


@AT_EACH_STEP
def test_change_committed_while_a_refresh_stands_at_any_step_is_not_lost(
    rollups: Stage, writer: Session, refresher: Session, gates: Callable[..., Gate], function: str, when: str
) -> None:
    rollups.run(MANY_CHANGES)
    gate = gates(refresher, function, when)
    refresher.start(REFRESH, "hourly")
    refresher.wait_blocked_by(gate)
    change_all(writer)
    gate.open()
    refresher.finish()

    rollups.cascade()

    assert (rollups.difference("hourly"), rollups.difference("daily")) == ([], [])


@pytest.mark.parametrize("when", ["before", "after"])
def test_change_committed_while_a_refresh_finds_nothing_to_do_is_not_lost(
    rollups: Stage, writer: Session, refresher: Session, gates: Callable[..., Gate], when: str
) -> None:
    rollups.cascade()
    gate = gates(refresher, "_is_idle", when)
    refresher.start(REFRESH, "hourly")
    refresher.wait_blocked_by(gate)
    change_all(writer)
    gate.open()
    refresher.finish()

    rollups.cascade()

    assert (rollups.difference("hourly"), rollups.difference("daily")) == ([], [])


@AT_EACH_STEP
def test_change_made_before_and_committed_while_a_refresh_stands_at_any_step_is_not_lost(
    rollups: Stage, writer: Session, refresher: Session, gates: Callable[..., Gate], function: str, when: str
) -> None:
    rollups.run(MANY_CHANGES)
    writer.begin()
    change_all(writer)
    gate = gates(refresher, function, when)
    refresher.start(REFRESH, "hourly")
    refresher.wait_blocked_by(gate)
    writer.commit()
    gate.open()
    refresher.finish()

    rollups.cascade()

    assert (rollups.difference("hourly"), rollups.difference("daily")) == ([], [])


@pytest.mark.parametrize(
    ("function", "when"), STEPS_OF_THE_TOP, ids=[f"{w} {f}" for f, w in STEPS_OF_THE_TOP]
)
def test_change_that_climbs_while_the_upper_refresh_stands_at_any_step_is_not_lost(
    rollups: Stage, writer: Session, refresher: Session, gates: Callable[..., Gate], function: str, when: str
) -> None:
    rollups.refresh("hourly")
    gate = gates(refresher, function, when)
    refresher.start(REFRESH, "daily")
    refresher.wait_blocked_by(gate)
    change_all(writer)
    rollups.refresh("hourly")
    gate.open()
    refresher.finish()

    rollups.cascade()

    assert rollups.difference("daily") == []


def test_change_committed_between_the_delete_and_the_insert_of_a_refresh_is_not_lost(
    rollups: Stage, writer: Session, refresher: Session, gates_at_rows: Callable[..., Gate]
) -> None:
    gate = gates_at_rows(refresher, "_rollup_hourly", "AFTER DELETE", "STATEMENT")
    refresher.start(REFRESH, "hourly")
    refresher.wait_blocked_by(gate)
    change_all(writer)
    gate.open()
    refresher.finish()

    rollups.cascade()

    assert rollups.difference("hourly") == []


def test_truncate_during_a_refresh_waits_for_it_and_is_not_lost(
    rollups: Stage, writer: Session, refresher: Session
) -> None:
    # TRUNCATE takes the whole table from its readers; this is Postgres' own rule.
    refresher.begin()
    refresher.run(REFRESH, "hourly")
    writer.start("TRUNCATE metrics")
    writer.wait_blocked_by(refresher)
    refresher.commit()
    writer.finish()

    rollups.cascade()

    assert rollups.totals("daily") == {}


def test_change_of_the_refreshing_transaction_itself_is_not_lost(rollups: Stage, writer: Session) -> None:
    # The race: pg_current_snapshot() takes its own transaction for ended once a later one is.
    writer.begin()
    writer.run("INSERT INTO metrics VALUES (10, '2024-01-01 05:00+00', 10)")
    rollups.run("CREATE TABLE elsewhere ()")
    writer.run(REFRESH, "hourly")
    writer.run("INSERT INTO metrics VALUES (11, '2024-01-01 05:00+00', 11)")
    writer.commit()

    rollups.refresh("hourly")

    assert rollups.difference("hourly") == []


def test_refresh_that_is_rolled_back_leaves_the_change_for_the_next(
    rollups: Stage, refresher: Session
) -> None:
    refresher.begin()
    refresher.run("SELECT lakets.refresh_rollup_cascade()")
    refresher.rollback()

    rollups.cascade()

    assert (rollups.difference("hourly"), rollups.difference("daily")) == ([], [])


def test_open_refresh_holds_up_no_writer_and_no_reader(
    rollups: Stage, writer: Session, refresher: Session
) -> None:
    before = rollups.totals("hourly")
    refresher.begin()
    refresher.run(REFRESH, "hourly")

    change_all(writer)

    assert rollups.totals("hourly") == before
    refresher.commit()
    assert rollups.totals("hourly") != before


def test_open_writer_holds_up_no_refresh(rollups: Stage, writer: Session) -> None:
    writer.begin()
    change_all(writer)

    assert rollups.cascade() == {"hourly": True, "daily": True}
    assert rollups.difference("hourly") == []


def test_refresh_refuses_a_transaction_that_cannot_see_new_commits(
    rollups: Stage, refresher: Session, raises: Raises
) -> None:
    refresher.begin("REPEATABLE READ")

    with raises("P0001", match="read committed"):
        refresher.run(REFRESH, "hourly")


# writer/writer


@pytest.mark.parametrize("keyed", [True, False], ids=["with key", "without key"])
def test_writers_of_the_same_buckets_do_not_wait_for_each_other(
    stage: Stage, sessions: Callable[[str], Session], keyed: bool
) -> None:
    stage.synced(keyed=keyed)
    stage.rollup("hourly")
    stage.sync("hourly")
    stage.run("INSERT INTO metrics SELECT n, '2024-01-01 06:00+00', 1 FROM generate_series(20, 25) AS n")
    first, second = sessions("first"), sessions("second")
    for writer, ids in ((first, (20, 21, 22)), (second, (23, 24, 25))):
        writer.begin()
        writer.run("INSERT INTO metrics VALUES (%s, '2024-01-01 06:00+00', 1)", ids[0] + 10)
        writer.run("UPDATE metrics SET value = 2 WHERE id = %s", ids[0])
        writer.run("UPDATE metrics SET at = at + interval '1 day' WHERE id = %s", ids[1])
        writer.run("DELETE FROM metrics WHERE id = %s", ids[2])

    # Both are open: had one waited for the other, its statement would have run into the timeout.
    first.commit()
    second.commit()
    stage.cascade()

    assert stage.difference("hourly") == []
    assert stage.run("TABLE metrics ORDER BY 1, 2") == stage.run(
        "TABLE lakets_cdf._shadow_metrics ORDER BY 1, 2"
    )


def test_writers_of_rows_that_look_alike_do_not_wait_for_each_other(
    stage: Stage, sessions: Callable[[str], Session]
) -> None:
    # Without a key, each takes one of several like copies out of the shadow.
    stage.synced(keyed=False, rows=False)
    stage.run("INSERT INTO metrics SELECT 1, '2024-01-01 06:00+00', 1 FROM generate_series(1, 4)")
    first, second = sessions("first"), sessions("second")
    one_of_them = "WHERE ctid = (SELECT ctid FROM metrics ORDER BY ctid {} LIMIT 1)"
    for writer, order in ((first, "ASC"), (second, "DESC")):
        writer.begin()
        writer.run(f"DELETE FROM metrics {one_of_them.format(order)}")
    first.commit()
    second.rollback()

    assert stage.value("SELECT count(*) FROM metrics") == 3
    assert stage.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == 3


# refresh/refresh


def test_second_refresh_of_a_rollup_steps_aside(rollups: Stage, refresher: Session) -> None:
    refresher.begin()
    refresher.run(REFRESH, "hourly")

    assert not rollups.refresh("hourly")


def test_independent_rollups_refresh_side_by_side(rollups: Stage, refresher: Session) -> None:
    rollups.rollup("other")
    rollups.run("INSERT INTO metrics VALUES (10, '2024-01-01 05:00+00', 10)")
    refresher.begin()
    refresher.run(REFRESH, "hourly")

    assert rollups.refresh("other")
    assert rollups.difference("other") == []


def test_lower_rollup_refreshes_while_the_one_above_is_at_it(rollups: Stage, refresher: Session) -> None:
    rollups.refresh("hourly")
    refresher.begin()
    refresher.run(REFRESH, "daily")
    rollups.run("INSERT INTO metrics VALUES (10, '2024-01-01 05:00+00', 10)")

    assert rollups.refresh("hourly")
    refresher.commit()
    assert rollups.refresh("daily")
    assert rollups.difference("daily") == []


def test_two_cascades_at_once_lose_nothing(rollups: Stage, writer: Session, refresher: Session) -> None:
    # The race: the second cascade finds hourly taken, goes on to daily, and the first passes it
    # there.
    refresher.begin()
    refresher.run(REFRESH, "hourly")
    change_all(writer)
    second = rollups.cascade()
    refresher.run(REFRESH, "daily")
    refresher.commit()

    rollups.cascade()

    assert second == {"hourly": False, "daily": True}
    assert (rollups.difference("hourly"), rollups.difference("daily")) == ([], [])


# refresh/create_rollup, prune/create_rollup


# refresh/trigger: what a refresh found on the RollUp's table is all there is until it has written.
def test_a_trigger_that_somebody_adds_while_a_refresh_stands_waits_for_its_end(
    rollups: Stage,
    writer: Session,
    refresher: Session,
    gates: Callable[..., Gate],
) -> None:
    rollups.run("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
    gate = gates(refresher, "_recompute")
    refresher.start(REFRESH, "hourly")
    refresher.wait_blocked_by(gate)
    writer.start("CREATE TRIGGER odd BEFORE INSERT ON _rollup_hourly FOR EACH ROW EXECUTE FUNCTION swallow()")
    writer.wait_blocked_by(refresher)
    gate.open()
    refresher.finish()
    writer.finish()

    assert rollups.difference("hourly") == []
