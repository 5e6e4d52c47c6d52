"""Promises 3 to 5 and 11: retention checks again under locks, loses nothing, blocks briefly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.isolation.retention.scene import RETAIN, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Gate, Session
    from tests.stage import HandFeed, Raises, Stage


# writer/retention


def test_row_committed_while_retention_waits_keeps_its_chunk(
    stage: Stage, feed: HandFeed, retention: Session, writer: Session
) -> None:
    # The race: all four chunks were durable when retention looked first.
    writer.begin()
    write(writer, 1)
    retention.start(RETAIN)
    retention.wait_blocked_by(writer)
    writer.commit()

    assert retention.finish() == [(3,)]
    assert stage.statuses() == {1: "tiered", 2: "dropped", 3: "dropped", 4: "dropped"}
    assert stage.value("SELECT count(*) FROM metrics") == 2


def test_row_rolled_back_while_retention_waits_keeps_nothing(
    stage: Stage, feed: HandFeed, retention: Session, writer: Session
) -> None:
    writer.begin()
    write(writer, 1)
    retention.start(RETAIN)
    retention.wait_blocked_by(writer)
    writer.rollback()

    assert retention.finish() == [(4,)]


def test_row_flushed_only_in_part_keeps_its_chunk(
    stage: Stage, feed: HandFeed, retention: Session, writer: Session, sessions: Callable[[str], Session]
) -> None:
    # The race of the proof, on the way to a drop: T2's flush passes T1's stamp.
    second = sessions("second writer")
    writer.begin()
    write(writer, 1)
    write(second, 3, 200)
    feed.flush()
    writer.commit()

    retention.run(RETAIN)
    retention.run(RETAIN)

    assert stage.statuses()[1] != "dropped"
    feed.flush()
    retention.run(RETAIN)
    assert set(stage.statuses().values()) == {"dropped"}


def test_writer_that_outlasts_the_lock_timeout_makes_retention_contended(
    stage: Stage, feed: HandFeed, retention: Session, writer: Session, raises: Raises
) -> None:
    stage.set_lock_timeout("100ms", "execute_retention")
    writer.begin()
    write(writer, 4)
    retention.start(RETAIN)

    with raises("55P03"):
        retention.finish()

    writer.commit()
    assert "dropped" not in stage.statuses().values()


def test_jobs_wait_for_a_lock_two_seconds_at_most(stage: Stage) -> None:
    jobs = ["_ensure_partitions", "_get_chunks_to_tier", "tier_chunk", "execute_retention", "refresh_rollup"]

    patient = stage.column(
        "SELECT proname::text FROM pg_proc WHERE 'lock_timeout=2s' = ANY (proconfig) AND proname = ANY (%s)",
        jobs,
    )

    assert sorted(patient) == sorted(jobs)


def test_writer_waits_for_retention_and_then_writes_elsewhere(
    stage: Stage, feed: HandFeed, retention: Session, writer: Session
) -> None:
    retention.begin()
    retention.run(RETAIN)
    writer.start("INSERT INTO metrics VALUES (50, '2024-01-01 01:00+00', 50)")
    writer.wait_blocked_by(retention)
    retention.commit()
    writer.finish()

    # Its range is dropped, so the row is kept outside every chunk.
    assert stage.run("SELECT id, value FROM metrics") == [(50, 50)]
    assert stage.value("SELECT count(*) FROM lakets_cdf._shadow_metrics WHERE id = 50") == 1


def test_fence_of_retention_does_not_deadlock_with_a_writer(
    stage: Stage,
    feed: HandFeed,
    retention: Session,
    writer: Session,
    sessions: Callable[[str], Session],
    gates_at_rows: Callable[..., Gate],
) -> None:
    # The race: a writer has the table and is about to lock the shadow; retention would have the
    # shadow for a fence (writers overlapped in chunk 4) and wait for the table, to drop the chunks
    # that are proved.
    second = sessions("second writer")
    second.begin()
    write(second, 4, 200)
    write(writer, 4, 300)
    second.commit()
    gate = gates_at_rows(writer, "metrics", "AFTER INSERT")
    writer.start("INSERT INTO metrics VALUES (400, '2024-01-04 02:00+00', 400)")
    writer.wait_blocked_by(gate)
    retention.start(RETAIN)
    retention.wait_blocked_by(writer)
    gate.open()
    writer.finish()

    assert retention.finish() == [(3,)]
    retention.run(RETAIN)
    feed.flush()
    assert retention.value(RETAIN) == 1


def test_retention_that_has_nothing_to_drop_locks_no_table(
    stage: Stage, feed: HandFeed, retention: Session, writer: Session
) -> None:
    # What must stay costs nobody a wait: the writer is open, and retention does not wait for it.
    feed.report("SKIPPED")
    writer.begin()
    write(writer, 4)

    assert retention.value(RETAIN) == 0


# reader/retention


def test_reader_behind_retention_waits_only_as_long_as_retention_does(
    stage: Stage,
    feed: HandFeed,
    retention: Session,
    writer: Session,
    sessions: Callable[[str], Session],
    raises: Raises,
) -> None:
    # The race: a long reader holds retention up, and whoever comes later queues behind retention.
    long_reader, late_reader = sessions("long reader"), sessions("late reader")
    stage.set_lock_timeout("4s", "execute_retention")
    long_reader.begin()
    long_reader.run("SELECT count(*) FROM metrics")
    retention.start(RETAIN)
    retention.wait_blocked_by(long_reader)
    late_reader.start("SELECT count(*) FROM metrics WHERE id <> 50")  # the writer may come first
    writer.start("INSERT INTO metrics VALUES (50, '2024-01-04 01:00+00', 50)")
    late_reader.wait_blocked_by(retention)
    writer.wait_blocked_by(retention)

    with raises("55P03"):
        retention.finish()

    # The long reader is still open: it was retention that stepped back.
    assert late_reader.finish() == [(4,)]
    writer.finish()


def test_reader_that_leaves_in_time_lets_retention_go_on(
    stage: Stage, feed: HandFeed, retention: Session, sessions: Callable[[str], Session]
) -> None:
    reader = sessions("reader")
    reader.begin()
    reader.run("SELECT count(*) FROM metrics")
    retention.start(RETAIN)
    retention.wait_blocked_by(reader)
    reader.commit()

    assert retention.finish() == [(4,)]


# retention/retention, tier/retention


def test_retention_waits_for_who_looks_at_the_metrics_with_nothing_in_its_hands(
    stage: Stage, feed: HandFeed, retention: Session, sessions: Callable[[str], Session]
) -> None:
    # The race: metrics count the rows of the default partition, then look at the chunks; a drop
    # locks a chunk, then the default partition.
    monitor = sessions("monitor")
    monitor.begin()
    monitor.run("SELECT count(*) FROM lakets.lakets_metrics()")
    retention.start(RETAIN)
    retention.wait_blocked_by(monitor)

    monitor.run("SELECT count(*) FROM lakets.lakets_metrics()")

    monitor.commit()
    assert retention.finish() == [(4,)]


def test_metrics_of_other_tables_are_told_while_one_is_locked(
    stage: Stage, feed: HandFeed, sessions: Callable[[str], Session]
) -> None:
    stage.table("events")
    stage.set_lock_timeout("50ms", "_stray_rows")
    owner, monitor = sessions("owner"), sessions("monitor")
    owner.begin()
    owner.run("LOCK TABLE ONLY metrics IN ACCESS EXCLUSIVE MODE")

    told = monitor.run(
        "SELECT labels ->> 'table', metric_value FROM lakets.lakets_metrics()"
        " WHERE metric_name = 'lakets_rows_outside_chunks' ORDER BY 1"
    )

    assert told == [("public.events", 0), ("public.metrics", None)]


# reader of a chunk by its own name/retention: such a reader may ask for the parent next, in the
# order opposite to that of a drop; and a wait for it would be spent with the parent in hand, chunk
# after chunk.


def test_a_chunk_read_by_its_own_name_stays_and_nobody_waits(
    stage: Stage, feed: HandFeed, retention: Session, sessions: Callable[[str], Session]
) -> None:
    reader = sessions("reader")
    reader.begin()
    reader.run("SELECT * FROM metrics_20240102_000000")

    assert retention.value(RETAIN) == 3
    assert reader.value("SELECT count(*) FROM metrics") == 1

    reader.commit()
    assert retention.value(RETAIN) == 1


@pytest.mark.parametrize(
    "call",
    [
        "SELECT lakets.execute_retention('metrics', p_force => true)",
        "SELECT lakets.drop_chunks('metrics', '1 day')",
    ],
)
def test_a_drop_gives_up_at_once_when_all_it_could_drop_is_read_by_name(
    stage: Stage,
    retention: Session,
    sessions: Callable[[str], Session],
    call: str,
) -> None:
    stage.run("UPDATE lakets._chunk_metadata SET status = 'active'")
    reader = sessions("reader")
    reader.begin()
    for day in range(1, 5):
        reader.run(f"SELECT * FROM metrics_2024010{day}_000000")

    with pytest.raises(psycopg.errors.LockNotAvailable, match="is being used by other sessions"):
        retention.run(call)

    assert reader.value("SELECT count(*) FROM metrics") == 4
    assert "dropped" not in stage.statuses().values()


def test_a_drop_does_not_wait_for_a_reader_of_the_default_partition(
    stage: Stage,
    feed: HandFeed,
    retention: Session,
    sessions: Callable[[str], Session],
) -> None:
    reader = sessions("reader")
    reader.begin()
    reader.run("SELECT * FROM metrics_default")

    with pytest.raises(psycopg.errors.LockNotAvailable, match="default partition of public"):
        retention.run(RETAIN)

    assert reader.value("SELECT count(*) FROM metrics") == 4
    reader.commit()
    assert retention.value(RETAIN) == 4


# refresh/retention


# What only an explicit force overrides


def test_force_drops_what_is_neither_durable_nor_absorbed(
    stage: Stage, feed: HandFeed, hourly: None, retention: Session, writer: Session
) -> None:
    writer.run("UPDATE metrics SET value = value + 1")
    feed.report("SKIPPED")

    without = retention.value(RETAIN)
    forced = retention.value("SELECT lakets.execute_retention('metrics', p_force => true)")

    assert (without, forced) == (0, 4)


@pytest.mark.parametrize(
    "mishap",
    [
        "UPDATE wal2delta.tables SET status = 'SKIPPED'",
        "UPDATE wal2delta.tables SET committed_lsn = NULL",
        "DROP SCHEMA wal2delta CASCADE",
        "REVOKE ALL ON wal2delta.tables FROM PUBLIC; SET ROLE a_role",
        "ALTER TABLE metrics DISABLE TRIGGER ALL",
        "ALTER TABLE metrics ADD COLUMN more text",
    ],
    ids=["skipped", "no position", "gone", "unreadable", "not tracked", "column not mirrored"],
)
def test_retention_drops_nothing_that_may_not_be_durable(
    stage: Stage, feed: HandFeed, retention: Session, mishap: str
) -> None:
    role = f"jobs_{stage.conn.info.dbname}"
    stage.run(f"CREATE ROLE {role}")
    stage.run(
        f"GRANT ALL ON ALL TABLES IN SCHEMA lakets, lakets_cdf, public TO {role};"
        f" GRANT USAGE ON SCHEMA lakets, lakets_cdf TO {role}"
    )
    try:
        retention.run(mishap.replace("a_role", role))

        assert retention.value(RETAIN) == 0
        assert "dropped" not in stage.statuses().values()
    finally:
        retention.run("RESET ROLE")
        stage.run(f"DROP OWNED BY {role}")
        stage.run(f"DROP ROLE {role}")
