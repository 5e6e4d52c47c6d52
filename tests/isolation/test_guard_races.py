"""Chunks are guarded beside writers: writers continue, and no direct write is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Session
    from tests.stage import Stage

    Sessions = Callable[[str], Session]

GUARD = "SELECT lakets.guard_chunks('metrics')"
LEFT = "SELECT lakets._unguarded_partitions('metrics')::text[]"


@pytest.fixture
def open_chunks(stage: Stage) -> Stage:
    """A table with four chunks that can be written directly, as 0.1.3 leaves them, and a RollUp."""
    stage.once(make_open)
    return stage


def make_open(stage: Stage) -> None:
    stage.table()
    stage.rollup("hourly")
    for chunk in stage.column(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'metrics'::regclass"
    ):
        stage.run(f"DROP TRIGGER lakets_no_direct_write ON {chunk}")


def direct(stage: Stage, day: int, value: int) -> str:
    """Return a write that names a chunk."""
    return f"UPDATE {stage.chunk(day)} SET value = {value}"


# guard/writer: the other chunks are guarded, the writer goes on, and the next call takes what is
# left.
def test_a_chunk_that_is_being_written_is_passed_over(open_chunks: Stage, sessions: Sessions) -> None:
    writer, keeper = sessions("writer"), sessions("keeper")
    writer.begin()
    writer.run(direct(open_chunks, 3, 30))

    assert keeper.value(GUARD) == open_chunks.value(
        "SELECT count(*) - 1 FROM pg_inherits WHERE inhparent = 'metrics'::regclass"
    )
    assert open_chunks.value(LEFT) == [open_chunks.chunk(3).removeprefix("public.")]
    writer.run(direct(open_chunks, 3, 31))
    writer.commit()
    assert keeper.value(GUARD) == 1
    assert keeper.value(GUARD) == 0

    open_chunks.refresh("hourly")
    assert open_chunks.difference("hourly") == []


# guard/writer, the last one: it is waited for, and what it wrote counts as changed though nobody
# was told.
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_the_writer_of_the_last_chunk_is_waited_for(open_chunks: Stage, sessions: Sessions, end: str) -> None:
    writer, keeper = sessions("writer"), sessions("keeper")
    writer.begin()
    writer.run(direct(open_chunks, 3, 30))
    keeper.run(GUARD)

    keeper.start(GUARD)
    keeper.wait_blocked_by(writer)
    open_chunks.refresh("hourly")
    writer.run(end)
    assert keeper.finish() == [(1,)]
    open_chunks.refresh("hourly")

    assert open_chunks.difference("hourly") == []
    assert open_chunks.totals("hourly")["3 12"] == (30 if end == "COMMIT" else 3)


# guard/writer of two chunks: the guard has one and would want the other, whose writer wants the
# first.
def test_a_writer_of_two_chunks_is_not_ended_by_the_guard(open_chunks: Stage, sessions: Sessions) -> None:
    writer, keeper = sessions("writer"), sessions("keeper")
    writer.run("SET deadlock_timeout = '10ms'")
    writer.begin()
    writer.run(direct(open_chunks, 3, 30))
    keeper.begin()
    assert keeper.value(GUARD) > 3

    writer.start("UPDATE metrics SET value = 10 WHERE id = 1")
    writer.wait_blocked_by(keeper)
    keeper.commit()
    writer.finish()
    writer.commit()

    assert keeper.value(GUARD) == 1
    open_chunks.refresh("hourly")
    assert open_chunks.totals("hourly") | {"1 12": 10, "3 12": 30} == open_chunks.totals("hourly")


# guard/guard and guard/retention: one maintainer at a time.
@pytest.mark.parametrize(
    "other", [GUARD, "SELECT lakets.execute_retention('metrics')"], ids=["guard", "retain"]
)
def test_two_maintainers_take_turns(open_chunks: Stage, sessions: Sessions, other: str) -> None:
    open_chunks.run("SELECT lakets.add_retention_policy('metrics', '1 day')")
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run(GUARD)

    second.start(other)
    second.wait_blocked_by(first)
    first.commit()

    assert second.finish() == [(0,)]  # nothing is left to guard; what was guarded is to be absorbed first


# retention/writer: a chunk that somebody writes directly is neither guarded nor dropped, and the
# others are.
def test_retention_guards_and_then_drops_around_a_writer(open_chunks: Stage, sessions: Sessions) -> None:
    open_chunks.run("SELECT lakets.add_retention_policy('metrics', '1 day')")
    writer, keeper = sessions("writer"), sessions("keeper")
    writer.begin()
    writer.run(direct(open_chunks, 1, 10))

    assert keeper.value("SELECT lakets.execute_retention('metrics')") == 0
    open_chunks.refresh("hourly")
    writer.commit()
    assert keeper.value("SELECT lakets.execute_retention('metrics')") == 0
    open_chunks.refresh("hourly")
    assert keeper.value("SELECT lakets.execute_retention('metrics')") > 3

    assert open_chunks.totals("hourly") == {"1 12": 10, "2 12": 2, "3 12": 3, "4 12": 4}


# tiering: a chunk in doubt is guarded under the lock under which it is compared.
def test_tiering_guards_the_chunk_that_it_compares(stage: Stage) -> None:
    feed = stage.synced()
    chunk = stage.chunk(2)
    stage.run(f"DROP TRIGGER lakets_no_direct_write ON {chunk}")
    stage.run(direct(stage, 2, 20))
    stage.run("INSERT INTO lakets._mirror_gap (shadow) VALUES ('lakets_cdf._shadow_metrics')")
    stage.run("SELECT lakets._begin_mirror_check(reg) FROM lakets._chronotable_registry AS reg")

    assert not stage.tier(2)
    feed.flush()

    assert stage.tier(2)
    assert stage.value("SELECT value FROM lakets_cdf._shadow_metrics WHERE id = 2") == 20
    with pytest.raises(Exception, match="cannot be written directly"):
        stage.run(direct(stage, 2, 21))


@pytest.fixture
def older(open_chunks: Stage) -> Stage:
    """The same table, whose chunks have the guard of an older version: one trigger for all."""
    for chunk in open_chunks.column(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'metrics'::regclass"
    ):
        open_chunks.run(
            f"DROP TRIGGER lakets_no_direct_truncate ON {chunk};"
            " CREATE TRIGGER lakets_no_direct_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON"
            f" {chunk} FOR EACH STATEMENT EXECUTE FUNCTION lakets._refuse_direct_write();"
            f" ALTER TABLE {chunk} ENABLE ALWAYS TRIGGER lakets_no_direct_write"
        )
    return open_chunks


OLDER = "SELECT lakets._older_guards('metrics')::text[]"


# renew/writer of the table: the other chunks are done, the writer goes on, and its chunk follows.
def test_older_guards_are_renewed_around_a_writer_of_the_table(older: Stage, sessions: Sessions) -> None:
    writer, keeper = sessions("writer"), sessions("keeper")
    writer.begin()
    writer.run("INSERT INTO metrics VALUES (30, '2024-01-03 12:00', 30)")

    assert keeper.value(GUARD) > 3
    assert older.value(OLDER) == [older.chunk(3).removeprefix("public.")]
    keeper.start(GUARD)
    keeper.wait_blocked_by(writer)
    writer.run("INSERT INTO metrics VALUES (31, '2024-01-03 12:00', 31)")
    writer.commit()
    assert keeper.finish() == [(1,)]

    older.refresh("hourly")
    assert older.difference("hourly") == []


# renew/truncate of the table: while guards are half renewed, either kind lets TRUNCATE of the table
# pass, and refuses that of a chunk.
def test_a_truncate_passes_guards_of_both_versions(older: Stage, sessions: Sessions) -> None:
    writer, keeper, stranger = sessions("writer"), sessions("keeper"), sessions("stranger")
    assert keeper.value("SELECT lakets.guard_chunks('metrics', p_max_chunks => 2)") == 2
    writer.begin()
    writer.run("TRUNCATE metrics")

    keeper.start(GUARD)
    keeper.wait_blocked_by(writer)
    stranger.start(f"TRUNCATE {older.chunk(1)}")
    stranger.wait_blocked_by(writer)
    writer.commit()

    assert keeper.finish() == [(1,)]
    with pytest.raises(Exception, match="cannot be written directly"):
        stranger.finish()
    assert older.value("SELECT count(*) FROM metrics") == 0
    older.refresh("hourly")
    assert older.difference("hourly") == []
