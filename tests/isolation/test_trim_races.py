"""Trimming beside all other jobs: the mirror loses no row, and nobody waits without need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Session
    from tests.stage import HandFeed, Raises, Stage

TRIM = "SELECT lakets.trim_shadow('metrics')"
RETAIN = "SELECT lakets.execute_retention('metrics')"
# Days 1 and 2 are dropped. LATE is the row that day 1 had, come again: it looks the same.
ADD = "INSERT INTO metrics VALUES (%s, %s, %s)"
LATE = (1, "2024-01-01 12:00:00+00", 1)
RESIDENT = (30, "2024-01-03 01:00:00+00", 30)


@pytest.fixture(params=[True, False], ids=["keyed", "keyless"])
def feed(stage: Stage, request: pytest.FixtureRequest) -> HandFeed:
    """Drop the durable chunks of days 1 and 2, and keep days 3 and 4; all may be trimmed."""
    stage.once(make_trimmed, keyed=request.param)
    feed = stage.follow()
    stage.run("INSERT INTO wal2delta.tables VALUES ('lakets_cdf._trim_log'::regclass, 'STREAMING', '0/0')")
    assert stage.tier(1)
    assert stage.value(RETAIN) == 2
    return feed


def make_trimmed(stage: Stage, *, keyed: bool) -> None:
    stage.make_synced(keyed=keyed)
    stage.run("SELECT lakets.remove_retention_policy('metrics')")
    stage.run(
        "SELECT lakets.add_tiered_retention_policy("
        "'metrics', '1 day', now() - '2024-01-03 00:00+00'::timestamptz, p_trim_shadow => true)"
    )


@pytest.fixture
def trimmer(feed: HandFeed, sessions: Callable[[str], Session]) -> Session:
    return sessions("trimmer")


@pytest.fixture
def writer(feed: HandFeed, sessions: Callable[[str], Session]) -> Session:
    return sessions("writer")


def surplus(stage: Stage) -> list[tuple[Any, ...]]:
    """Return what the shadow has and the table has not (+), and the reverse (-)."""
    return stage.run(
        "SELECT '+', id, value FROM (TABLE lakets_cdf._shadow_metrics EXCEPT ALL TABLE metrics) AS more"
        " UNION ALL"
        " SELECT '-', id, value FROM (TABLE metrics EXCEPT ALL TABLE lakets_cdf._shadow_metrics) AS less"
        " ORDER BY 2"
    )


def gaps(stage: Stage) -> int:
    return int(stage.value("SELECT count(*) FROM lakets._mirror_gap"))


def prove(stage: Stage, feed: HandFeed) -> None:
    """Flush all there is, and let it be known."""
    for _ in range(3):
        feed.flush()
        stage.run("SELECT lakets._prove(reg) FROM lakets._chronotable_registry AS reg")
        stage.run("SELECT lakets._move_feed(reg) FROM lakets._chronotable_registry AS reg")


# trim/writer


def test_writers_to_chunks_do_not_wait_for_a_trim(stage: Stage, trimmer: Session, writer: Session) -> None:
    trimmer.begin()
    assert trimmer.value(TRIM) == 2

    writer.run(ADD, *RESIDENT)
    writer.run("UPDATE metrics SET value = 31 WHERE at = %s", RESIDENT[1])
    writer.run("DELETE FROM metrics WHERE at >= '2024-01-04' AND at < '2024-01-05'")
    trimmer.commit()

    assert surplus(stage) == []
    assert gaps(stage) == 0


def test_trim_does_not_wait_for_writers_to_chunks(stage: Stage, trimmer: Session, writer: Session) -> None:
    writer.begin()
    writer.run(ADD, *RESIDENT)

    assert trimmer.value(TRIM) == 2
    writer.commit()
    assert surplus(stage) == []


def test_trim_waits_for_a_late_row_and_leaves_its_copy(
    stage: Stage, feed: HandFeed, trimmer: Session, writer: Session
) -> None:
    # The race: until it commits, the late row's copy in the shadow looks like one that was dropped.
    writer.begin()
    writer.run(ADD, *LATE)
    trimmer.start(TRIM)
    trimmer.wait_blocked_by(writer)
    writer.commit()

    # Of its day nothing is trimmed: the late row is not known to be flushed.
    assert trimmer.finish() == [(1,)]
    assert surplus(stage) == [("+", 1, 1)]

    prove(stage, feed)
    assert stage.value(TRIM) == 1
    assert surplus(stage) == []


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM metrics WHERE id = 1", "UPDATE metrics SET value = 9 WHERE id = 1"],
    ids=["delete", "update"],
)
def test_late_writer_waits_for_a_trim_and_finds_the_copy_of_its_row(
    stage: Stage, feed: HandFeed, trimmer: Session, writer: Session, change: str
) -> None:
    # The race: the writer's row has two copies, and the writer may look for the one that the trim
    # takes away.
    writer.run(ADD, *LATE)
    prove(stage, feed)
    trimmer.begin()
    assert trimmer.value(TRIM) == 2
    writer.start(change)
    writer.wait_blocked_by(trimmer)
    trimmer.commit()
    writer.finish()

    assert surplus(stage) == []
    assert gaps(stage) == 0


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM metrics WHERE id = 1", "UPDATE metrics SET value = 9 WHERE id = 1"],
    ids=["delete", "update"],
)
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_trim_waits_for_a_late_writer_and_counts_what_it_left(
    stage: Stage, feed: HandFeed, trimmer: Session, writer: Session, change: str, end: str
) -> None:
    writer.run(ADD, *LATE)
    prove(stage, feed)
    writer.begin()
    writer.run(change)
    trimmer.start(TRIM)
    trimmer.wait_blocked_by(writer)
    writer.run(end)
    trimmer.finish()
    prove(stage, feed)
    stage.run(TRIM)

    assert surplus(stage) == []
    assert gaps(stage) == 0


def test_truncate_waits_for_a_trim(stage: Stage, trimmer: Session, writer: Session) -> None:
    trimmer.begin()
    assert trimmer.value(TRIM) == 2
    writer.start("TRUNCATE metrics")
    writer.wait_blocked_by(trimmer)
    trimmer.commit()
    writer.finish()

    assert stage.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == 0


def test_late_writer_that_outlasts_the_lock_timeout_makes_the_trim_contended(
    stage: Stage, trimmer: Session, writer: Session, raises: Raises
) -> None:
    stage.set_lock_timeout("50ms")
    writer.begin()
    writer.run(ADD, *LATE)

    with raises("55P03"):
        trimmer.run(TRIM)
    writer.rollback()
    assert trimmer.value(TRIM) == 2


# trim/trim, trim/retention, trim/sync


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_second_trim_waits_and_takes_what_is_left(
    stage: Stage, trimmer: Session, sessions: Callable[[str], Session], end: str
) -> None:
    second = sessions("second")
    trimmer.begin()
    assert trimmer.value(TRIM) == 2
    second.start(TRIM)
    second.wait_blocked_by(trimmer)
    trimmer.run(end)

    assert second.finish() == [(0 if end == "COMMIT" else 2,)]
    assert surplus(stage) == []


def test_retention_and_trimming_take_turns(
    stage: Stage, trimmer: Session, sessions: Callable[[str], Session]
) -> None:
    retention = sessions("retention")
    trimmer.begin()
    trimmer.run(TRIM)
    retention.start("SELECT lakets.drop_chunks('metrics', '1 day')")
    retention.wait_blocked_by(trimmer)
    trimmer.commit()
    assert retention.finish() == [(2,)]

    retention.begin()
    retention.run("SELECT lakets.drop_chunks('metrics', '1 day')")
    trimmer.start(TRIM)
    trimmer.wait_blocked_by(retention)
    retention.commit()
    assert trimmer.finish() == [(2,)]
    assert surplus(stage) == []


def test_repair_of_the_shadow_waits_for_a_trim_and_brings_nothing_back(
    stage: Stage, trimmer: Session, sessions: Callable[[str], Session]
) -> None:
    keeper = sessions("keeper")
    trimmer.begin()
    assert trimmer.value(TRIM) == 2
    stage.run("INSERT INTO lakets._mirror_gap VALUES ('lakets_cdf._shadow_metrics')")
    keeper.start("SELECT lakets.enable_sync('metrics')")
    keeper.wait_blocked_by(trimmer)
    trimmer.commit()
    keeper.finish()

    assert surplus(stage) == []


def test_trim_that_waited_for_the_end_of_sync_leaves_the_table_alone(
    stage: Stage, trimmer: Session, sessions: Callable[[str], Session]
) -> None:
    keeper = sessions("keeper")
    keeper.begin()
    keeper.run("SELECT lakets.disable_sync('metrics')")
    trimmer.start(TRIM)
    trimmer.wait_blocked_by(keeper)
    keeper.commit()

    assert trimmer.finish() == [(0,)]


# trim/proof


def test_fence_gives_way_to_a_trim(
    stage: Stage, feed: HandFeed, trimmer: Session, writer: Session, sessions: Callable[[str], Session]
) -> None:
    tier = sessions("tier")
    writer.run(ADD, *RESIDENT)
    trimmer.begin()
    assert trimmer.value(TRIM) == 2

    assert tier.value("SELECT lakets._fence(reg) FROM lakets._chronotable_registry AS reg") is False
    trimmer.commit()
    assert tier.value("SELECT lakets._fence(reg) FROM lakets._chronotable_registry AS reg") is True


def test_trim_waits_for_a_fence(
    stage: Stage, feed: HandFeed, trimmer: Session, sessions: Callable[[str], Session]
) -> None:
    tier = sessions("tier")
    tier.begin()
    assert tier.value("SELECT lakets._fence(reg) FROM lakets._chronotable_registry AS reg") is True
    trimmer.start(TRIM)
    trimmer.wait_blocked_by(tier)
    tier.commit()

    # The row that the fence changed is among those to remove, as it is now.
    assert trimmer.finish() == [(2,)]
    assert surplus(stage) == []


def test_trim_that_is_flushed_proves_nothing_about_a_writer_in_flight(
    stage: Stage, feed: HandFeed, trimmer: Session, writer: Session
) -> None:
    # The schedule: a row is written and its position noted; a trim commits, and is flushed, beyond
    # that; then the row commits.
    writer.begin()
    writer.run(ADD, *RESIDENT)
    xid = writer.xid
    assert trimmer.value(TRIM) == 2
    feed.flush()
    writer.commit()

    assert not stage.tier(3)
    assert not stage.tier(3)
    feed.flush_through(xid)
    prove(stage, feed)
    assert stage.tier(3)


def test_trim_that_is_not_flushed_keeps_no_chunk_from_being_durable(
    stage: Stage, feed: HandFeed, trimmer: Session
) -> None:
    assert trimmer.value(TRIM) == 2

    assert feed.unflushed()
    assert stage.tier(3)


def test_idle_table_is_durable_again_after_a_trim(
    stage: Stage, feed: HandFeed, trimmer: Session, writer: Session
) -> None:
    writer.run(ADD, *RESIDENT)
    assert trimmer.value(TRIM) == 2
    assert not stage.tier(3)
    feed.flush()

    assert stage.tier(3)
    assert (
        stage.value("SELECT count(*) FROM lakets.show_tiering_status('metrics') AS s WHERE s.caught_up") == 1
    )


def test_row_dropped_by_force_is_trimmed_only_once_it_is_flushed(
    stage: Stage, feed: HandFeed, trimmer: Session, writer: Session
) -> None:
    writer.run(ADD, *RESIDENT)
    stage.run("SELECT lakets.drop_chunks('metrics', '1 day')")
    assert trimmer.value(TRIM) == 3  # of days 1, 2 and 4

    assert trimmer.value(TRIM) == 0
    assert surplus(stage) == [("+", 3, 3), ("+", 30, 30)]
    feed.flush()
    trimmer.run(TRIM)
    feed.flush()
    trimmer.run(TRIM)
    assert surplus(stage) == []
