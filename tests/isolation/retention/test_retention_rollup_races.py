"""Promise 5, and retention beside refreshes: chunks with unabsorbed changes stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.isolation.retention.scene import REPORT, RETAIN, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Gate, Session
    from tests.stage import HandFeed, Stage


HOURLY = (
    "SELECT lakets.time_bucket('1 hour', at) AS bucket, sum(value)::bigint AS total"
    " FROM public.metrics GROUP BY 1"
)


@pytest.fixture
def unsynced(stage: Stage) -> None:
    """Make four cold chunks of a table that is not mirrored: only RollUps can keep them."""
    stage.table()
    stage.run("SELECT lakets.add_retention_policy('metrics', '2 days')")


def test_row_no_rollup_knows_of_yet_keeps_its_chunk_though_nothing_is_mirrored(
    stage: Stage, unsynced: None, sessions: Callable[[str], Session]
) -> None:
    # The race: the RollUp had absorbed all four chunks when retention looked first.
    stage.rollup("hourly")
    writer, retention = sessions("writer"), sessions("retention")
    writer.begin()
    write(writer, 1)
    retention.start(RETAIN)
    retention.wait_blocked_by(writer)
    writer.commit()

    assert retention.finish() == [(3,)]
    assert stage.statuses() == {1: "active", 2: "dropped", 3: "dropped", 4: "dropped"}
    assert stage.value(REPORT, stage.chunk(1)) == "not absorbed by RollUp hourly"


# refresh/retention


@pytest.mark.parametrize(
    ("function", "when"),
    [
        ("_take_dirty_buckets", "before"),
        ("_recompute", "before"),
        ("_recompute", "after"),
        ("_note_refresh", "after"),
    ],
)
def test_chunk_is_not_dropped_under_a_refresh(
    stage: Stage,
    feed: HandFeed,
    hourly: None,
    retention: Session,
    sessions: Callable[[str], Session],
    gates: Callable[..., Gate],
    function: str,
    when: str,
) -> None:
    # The race: the refresh has seen which chunks are dropped, and reads a source that has lost one
    # more: it would write empty buckets.
    stage.run("UPDATE metrics SET value = 77 WHERE id = 1")
    feed.flush()
    assert stage.tier(1)
    stage.run("SELECT lakets.invalidate_rollup_range('hourly', '2024-01-02', '2024-01-05')")
    refresher = sessions("refresher")
    gate = gates(refresher, function, when)
    refresher.start("SELECT lakets.refresh_rollup('hourly', true)")
    refresher.wait_blocked_by(gate)
    retention.start("SELECT lakets.execute_retention('metrics', p_force => true)")
    retention.wait_blocked_by(refresher)
    gate.open()
    refresher.finish()
    retention.finish()

    stage.run("SELECT lakets.invalidate_rollup_range('hourly', '2024-01-01', '2024-01-05')")
    stage.cascade()

    assert stage.totals("hourly") == {"1 12": 77, "2 12": 2, "3 12": 3, "4 12": 4}
    assert stage.difference("daily") == []


def test_refresh_waits_for_retention_and_keeps_what_was_dropped(
    stage: Stage, feed: HandFeed, hourly: None, retention: Session, sessions: Callable[[str], Session]
) -> None:
    stage.run("UPDATE metrics SET value = 77 WHERE id = 1")
    stage.cascade()
    feed.flush()
    refresher = sessions("refresher")
    stage.run("SELECT lakets.invalidate_rollup_range('hourly', '2024-01-01', '2024-01-05')")
    retention.begin()
    retention.run("SELECT lakets.execute_retention('metrics', p_force => true)")
    refresher.start("SELECT lakets.refresh_rollup('hourly', true)")
    refresher.wait_blocked_by(retention)
    retention.commit()
    refresher.finish()

    assert stage.totals("hourly") == {"1 12": 77, "2 12": 2, "3 12": 3, "4 12": 4}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE metrics SET value = 77 WHERE id = 1",
        "SELECT lakets.invalidate_rollup_range('hourly', '2024-01-01', '2024-01-02')",
    ],
    ids=["row", "mark"],
)
def test_refresh_rolled_back_while_retention_waits_has_absorbed_nothing(
    stage: Stage, unsynced: None, sessions: Callable[[str], Session], change: str
) -> None:
    # The race: the refresh took what is dirty, and retention waits for it; then it is dirty again.
    stage.rollup("hourly")
    stage.run(change)
    refresher, retention = sessions("refresher"), sessions("retention")
    refresher.begin()
    assert refresher.value("SELECT lakets.refresh_rollup('hourly', true)")
    retention.start(RETAIN)
    retention.wait_blocked_by(refresher)
    refresher.rollback()

    assert retention.finish() == [(3,)]
    assert stage.value(REPORT, stage.chunk(1)) == "not absorbed by RollUp hourly"
    stage.refresh("hourly")
    kept = stage.value("SELECT value FROM metrics WHERE id = 1")
    assert retention.value(RETAIN) == 1
    assert stage.totals("hourly") == {"1 12": kept, "2 12": 2, "3 12": 3, "4 12": 4}


def test_retention_defers_what_a_rollup_has_not_absorbed_and_names_it(
    stage: Stage, feed: HandFeed, hourly: None, retention: Session, writer: Session
) -> None:
    writer.run("UPDATE metrics SET value = 77 WHERE id = 1")
    feed.flush()

    dropped = retention.value(RETAIN)
    reason = stage.value(REPORT, stage.chunk(1))

    assert (dropped, reason) == (3, "not absorbed by RollUp hourly")


@pytest.mark.parametrize(
    ("earlier", "function"),
    [("SELECT", "_is_idle"), ("UPDATE metrics SET value = 7 WHERE id = 2", "_take_dirty_buckets")],
    ids=["idle", "with something to do"],
)
def test_change_committed_after_the_refresh_looked_keeps_its_chunk(
    stage: Stage,
    feed: HandFeed,
    hourly: None,
    retention: Session,
    writer: Session,
    sessions: Callable[[str], Session],
    gates: Callable[..., Gate],
    earlier: str,
    function: str,
) -> None:
    # The race: the refresh began before the change and ends after it, so it has not absorbed it.
    writer.run(earlier)
    refresher = sessions("refresher")
    gate = gates(refresher, function, "after")
    refresher.start("SELECT lakets.refresh_rollup('hourly', true)")
    refresher.wait_blocked_by(gate)
    writer.run("UPDATE metrics SET value = 77 WHERE id = 1")
    gate.open()
    refresher.finish()
    feed.flush()

    retention.run(RETAIN)

    assert stage.statuses()[1] != "dropped"
    assert stage.value(REPORT, stage.chunk(1)) == "not absorbed by RollUp hourly"


# create_rollup/retention


def test_retention_waits_for_a_new_rollup_to_be_loaded(
    stage: Stage, unsynced: None, sessions: Callable[[str], Session], gates: Callable[..., Gate]
) -> None:
    # The race: the RollUp is made, and about to read what retention would drop.
    creator, retention = sessions("creator"), sessions("retention")
    gate = gates(creator, "_recompute")
    creator.start("SELECT lakets.create_rollup('hourly', %s)", HOURLY)
    creator.wait_blocked_by(gate)
    retention.start(RETAIN)
    retention.wait_blocked_by(creator)
    gate.open()
    creator.finish()

    assert retention.finish() == [(4,)]
    assert stage.totals("hourly") == {"1 12": 1, "2 12": 2, "3 12": 3, "4 12": 4}


def test_rollup_created_while_retention_waits_has_its_say(
    stage: Stage, unsynced: None, sessions: Callable[[str], Session]
) -> None:
    # The race: there was no RollUp when retention looked first, and the row came after the RollUp
    # was loaded.
    creator, retention, writer = sessions("creator"), sessions("retention"), sessions("writer")
    creator.begin()
    creator.run("SELECT lakets.create_rollup('hourly', %s)", HOURLY)
    write(writer, 1)
    retention.start(RETAIN)
    retention.wait_blocked_by(creator)
    creator.commit()

    assert retention.finish() == [(3,)]
    assert stage.value(REPORT, stage.chunk(1)) == "not absorbed by RollUp hourly"
    stage.refresh("hourly")
    assert stage.totals("hourly") == {"1 1": 100, "1 12": 1, "2 12": 2, "3 12": 3, "4 12": 4}


@pytest.mark.parametrize(
    ("end", "days"), [("COMMIT", [3, 4]), ("ROLLBACK", [1, 2, 3, 4])], ids=["committed", "rolled back"]
)
def test_new_rollup_waits_for_retention_and_reads_what_stands(
    stage: Stage, unsynced: None, sessions: Callable[[str], Session], end: str, days: list[int]
) -> None:
    creator, retention = sessions("creator"), sessions("retention")
    retention.begin()
    retention.run("SELECT lakets.execute_retention('metrics', p_max_chunks => 2)")
    creator.start("SELECT lakets.create_rollup('hourly', %s)", HOURLY)
    creator.wait_blocked_by(retention)
    retention.run(end)
    creator.finish()

    assert stage.totals("hourly") == {f"{day} 12": day for day in days}
