"""Promises 1 to 3: a chunk is flagged if, and only if, every committed change is flushed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.isolation.durability.scene import COLD, OTHER, write, write_and_commit

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Gate, Session
    from tests.stage import HandFeed, Raises, Stage


# Which commits are flushed


def test_late_commit_below_the_flushed_position_is_not_taken_for_flushed(
    stage: Stage, feed: HandFeed, writer: Session, second: Session
) -> None:
    # The race: T1's stamp is lower than the position that T2's flush reaches.
    writer.begin()
    write(writer, COLD)
    write_and_commit(second, OTHER, 200)
    feed.flush()
    writer.commit()

    answers = [stage.tier(COLD)]
    feed.flush(1)  # T1
    answers.append(stage.tier(COLD))
    feed.flush()  # the fence
    answers.append(stage.tier(COLD))

    assert answers == [False, False, True]


def test_late_commit_is_not_taken_for_flushed_when_the_proof_began_before_it(
    stage: Stage, feed: HandFeed, writer: Session, second: Session
) -> None:
    # The race: a position is noted while T1 is open, T2 passes it, and only then T1 commits.
    writer.begin()
    write(writer, COLD)
    write_and_commit(second, OTHER, 200)
    stage.tier(COLD)
    write_and_commit(second, OTHER, 300)
    feed.flush()
    writer.commit()

    assert not stage.tier(COLD)


def test_position_that_is_just_the_stamp_of_a_late_commit_says_nothing_about_it(
    stage: Stage,
    sessions: Callable[[str], Session],
    gates_at_rows: Callable[..., Gate],
) -> None:
    # The race: T has mirrored its row and not yet logged it, when another commit ends. T's stamp is
    # the end of that commit, where the feed stands. T saw that commit, is the newest, and nobody
    # else is writing.
    stage.table()
    feed = stage.sync(position="end")
    writer, second = sessions("writer"), sessions("second writer")
    gate = gates_at_rows(writer, "lakets_cdf._shadow_metrics", "AFTER INSERT", "STATEMENT")
    assert stage.tier(COLD)

    for attempt in range(100, 120):  # the server may write to the WAL between the two
        writer.begin()
        writer.start("INSERT INTO metrics VALUES (%s, '2024-01-01 01:00+00', 0)", attempt)
        writer.wait_blocked_by(gate)
        write_and_commit(second, OTHER, attempt)
        gate.open()
        writer.finish()
        stamp = writer.value(
            "SELECT (lsn - '0/0')::bigint FROM lakets._change_log WHERE xid = pg_current_xact_id()"
        )
        if stamp == feed.flush()[-1].end:
            break
        writer.rollback()
        gate.shut()
    else:
        pytest.fail("no commit ended where the next stamp was taken")
    writer.commit()

    before_flush = stage.tier(COLD)
    feed.flush()
    after_flush = stage.tier(COLD)

    assert (before_flush, after_flush) == (False, True)


def test_chunk_of_an_idle_table_is_flagged_at_once_while_the_server_writes_on(
    stage: Stage, feed: HandFeed, writer: Session
) -> None:
    write_and_commit(writer, COLD)
    feed.flush()
    stage.run("CREATE TABLE elsewhere AS SELECT generate_series(1, 1000) AS n")

    assert stage.tier(COLD)


def test_idle_table_is_flagged_again_and_again_though_its_position_stands_still(
    stage: Stage, feed: HandFeed, writer: Session
) -> None:
    write_and_commit(writer, COLD)
    feed.flush()

    answers = [stage.tier(day) for day in (1, 2, 3, 4, 1)]

    assert answers == [True] * 5
    assert feed.unflushed() == []  # no fence was needed


def test_overlapping_writers_that_fall_idle_are_settled_by_one_fence(
    stage: Stage, feed: HandFeed, writer: Session, second: Session
) -> None:
    # The race: neither writer saw the other commit, so no stamp says which commit was the last.
    writer.begin()
    second.begin()
    write(writer, COLD)
    write(second, COLD, 200)
    second.commit()
    writer.commit()
    feed.flush()

    before_fence = stage.tier(COLD)
    before_flush = stage.tier(COLD)
    fences = feed.flush()
    after_flush = stage.tier(COLD)

    assert (before_fence, before_flush, after_flush) == (False, False, True)
    assert len(fences) == 1


def test_overlapping_writers_that_leave_nothing_are_settled_by_a_fence_too(
    stage: Stage, feed: HandFeed, writer: Session, second: Session
) -> None:
    # The race as above, but with no row left that a fence could touch.
    writer.begin()
    second.begin()
    writer.run("DELETE FROM metrics WHERE id <= 2")
    second.run("DELETE FROM metrics WHERE id > 2")
    second.commit()
    writer.commit()
    feed.flush()

    before_fence = stage.tier(COLD)
    fences = feed.flush()
    after_flush = stage.tier(COLD)

    assert (before_fence, after_flush) == (False, True)
    assert len(fences) == 1
    assert stage.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == 0


def test_emptying_an_empty_table_does_not_defer_its_chunks_for_good(stage: Stage, feed: HandFeed) -> None:
    stage.run("TRUNCATE metrics")
    stage.run("TRUNCATE metrics")  # which is logged, but changes nothing that the feed could pass
    feed.flush()

    stage.tier(COLD)
    feed.flush()

    assert stage.tier(COLD)


def test_fence_changes_nothing_in_the_shadow(
    stage: Stage, feed: HandFeed, writer: Session, second: Session
) -> None:
    writer.begin()
    write(writer, COLD)
    write_and_commit(second, COLD, 200)
    writer.commit()
    before = stage.run("SELECT * FROM lakets_cdf._shadow_metrics ORDER BY id, at")

    stage.tier(COLD)

    assert len(feed.unflushed()) == 3
    assert stage.run("SELECT * FROM lakets_cdf._shadow_metrics ORDER BY id, at") == before


def test_chunk_that_nobody_touched_is_flagged_while_others_are_written(
    stage: Stage, feed: HandFeed, writer: Session
) -> None:
    # The open writer has its rows elsewhere: this chunk's last change was flushed and proved
    # before.
    assert stage.tier(COLD)
    writer.begin()
    write(writer, OTHER)

    assert stage.tier(2)


def test_chunk_whose_changes_are_proved_needs_no_fence_for_the_changes_of_another(
    stage: Stage, feed: HandFeed, writer: Session
) -> None:
    assert stage.tier(COLD)
    write_and_commit(writer, OTHER)
    fences_before = len(feed.unflushed())

    assert stage.tier(2)
    assert len(feed.unflushed()) == fences_before


def test_open_writer_does_not_keep_what_was_flushed_before_from_being_flagged(
    stage: Stage, feed: HandFeed, writer: Session, second: Session
) -> None:
    # The open writer can neither be waited for nor fenced; the feed moves by itself when others
    # commit.
    write_and_commit(second, COLD)
    writer.begin()
    write(writer, OTHER)
    first = stage.tier(COLD)
    write_and_commit(second, OTHER, 300)
    feed.flush()

    assert (first, stage.tier(COLD)) == (False, True)


def test_write_that_was_rolled_back_does_not_defer(stage: Stage, feed: HandFeed, writer: Session) -> None:
    writer.begin()
    write(writer, COLD)
    writer.rollback()

    assert stage.tier(COLD)


def test_write_in_a_subtransaction_that_was_rolled_back_does_not_defer(
    stage: Stage, feed: HandFeed, writer: Session
) -> None:
    writer.begin()
    writer.run("SAVEPOINT s")
    write(writer, COLD)
    writer.run("ROLLBACK TO s")
    writer.commit()

    assert stage.tier(COLD)


def test_write_in_a_subtransaction_is_waited_for(stage: Stage, feed: HandFeed, writer: Session) -> None:
    writer.begin()
    writer.run("SAVEPOINT s")
    write(writer, COLD)
    writer.run("RELEASE s")
    writer.commit()
    before = stage.tier(COLD)
    feed.flush()

    assert (before, stage.tier(COLD)) == (False, True)


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_writer_with_an_old_snapshot_is_waited_for(
    stage: Stage, feed: HandFeed, writer: Session, second: Session, isolation: str
) -> None:
    # The race: the writer's snapshot is older than the commit of one who wrote, and was flushed,
    # before it.
    writer.begin(isolation)
    writer.run("SELECT count(*) FROM metrics")
    write_and_commit(second, OTHER, 200)
    feed.flush()
    write(writer, COLD)
    xid = writer.xid
    writer.commit()

    before = stage.tier(COLD)
    feed.flush_through(xid)
    stage.tier(COLD)
    feed.flush()

    assert not before
    assert stage.tier(COLD)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE metrics SET value = -1 WHERE id = 1",
        "UPDATE metrics SET at = at + interval '2 days' WHERE id = 1",
        "UPDATE metrics SET at = at - interval '2 days' WHERE id = 3",
        "DELETE FROM metrics WHERE id = 1",
        "TRUNCATE metrics",
        "INSERT INTO metrics SELECT 1, '2024-01-01 12:00+00', 7 ON CONFLICT (id, at) DO UPDATE SET value = 7",
        "MERGE INTO metrics AS m USING (VALUES (1), (9)) AS s (id) ON m.id = s.id"
        " WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.id, '2024-01-02 12:00+00', 1)",
    ],
    ids=["update", "move out", "move in", "delete", "truncate", "upsert", "merge"],
)
def test_every_kind_of_change_is_waited_for(
    stage: Stage, feed: HandFeed, writer: Session, statement: str
) -> None:
    writer.run(statement)
    before = stage.tier(COLD)
    feed.flush()

    assert (before, stage.tier(COLD)) == (False, True)


def test_commit_that_the_feed_flushed_before_anybody_can_see_it_proves_nothing_about_another(
    stage: Stage,
    feed: HandFeed,
    writer: Session,
    second: Session,
    unconfirmed: Callable[[Session], None],
) -> None:
    # The race: T2's commit is in the WAL and flushed, but not visible yet; T1 stamped before it,
    # commits after it, and is visible. Seen alone, T1 looks like the one that was flushed.
    second.begin()
    write(second, OTHER, 200)
    writer.begin()
    write(writer, COLD)
    unconfirmed(second)
    feed.flush(1)
    writer.commit()

    assert not stage.tier(COLD)

    second.cancel()
    second.finish()


def test_commit_that_becomes_visible_while_the_prover_looks_for_writers_is_counted(
    stage: Stage,
    feed: HandFeed,
    writer: Session,
    second: Session,
    sessions: Callable[[str], Session],
    gates: Callable[..., Gate],
    unconfirmed: Callable[[Session], None],
) -> None:
    # The same race, stepped on: T2 becomes visible, and lets go of its lock, just before the prover
    # looks for locks. So the prover's snapshot must be taken after that.
    second.begin()
    write(second, OTHER, 200)
    writer.begin()
    write(writer, COLD)
    unconfirmed(second)
    feed.flush(1)
    writer.commit()
    prover = sessions("prover")
    gate = gates(prover, "_is_being_written")
    prover.start("SELECT lakets.tier_chunk(%s)", stage.chunk(COLD))
    prover.wait_blocked_by(gate)
    second.cancel()
    second.finish()
    gate.open()

    assert prover.finish() == [(False,)]


def test_writers_that_begin_after_the_prover_looked_for_any_are_not_taken_for_flushed(
    stage: Stage,
    feed: HandFeed,
    writer: Session,
    second: Session,
    sessions: Callable[[str], Session],
    gates: Callable[..., Gate],
    unconfirmed: Callable[[Session], None],
) -> None:
    # The same race between the look for locks and the prover's snapshot: so the feed's position
    # must be read before both, or it would be T2's again, whom the snapshot does not see.
    prover = sessions("prover")
    gate = gates(prover, "_is_being_written", "after")
    prover.start("SELECT lakets.tier_chunk(%s)", stage.chunk(COLD))
    prover.wait_blocked_by(gate)
    second.begin()
    write(second, OTHER, 200)
    writer.begin()
    write(writer, COLD)
    unconfirmed(second)
    feed.flush(1)
    writer.commit()
    gate.open()

    assert prover.finish() == [(False,)]

    second.cancel()
    second.finish()


def test_prover_with_an_old_snapshot_does_not_take_the_invisible_for_the_absent(
    stage: Stage,
    feed: HandFeed,
    writer: Session,
    second: Session,
    sessions: Callable[[str], Session],
    unconfirmed: Callable[[Session], None],
) -> None:
    # The same race, with a job whose snapshot predates the visibility of T2 and who looks for locks
    # after it.
    second.begin()
    write(second, OTHER, 200)
    writer.begin()
    write(writer, COLD)
    unconfirmed(second)
    feed.flush(1)
    writer.commit()
    prover = sessions("prover")
    prover.begin("REPEATABLE READ")
    prover.run("SELECT committed_lsn FROM wal2delta.tables")
    second.cancel()
    second.finish()

    reason = prover.value("SELECT lakets.explain_durability(%s)", stage.chunk(COLD))

    assert reason == "changes to it are not known to be flushed yet"


@pytest.mark.parametrize("job", ["lakets.tier_chunk(%s)", "lakets._get_chunks_to_tier('metrics')"])
def test_job_that_would_store_a_proof_refuses_an_old_snapshot(
    stage: Stage, feed: HandFeed, writer: Session, raises: Raises, job: str
) -> None:
    writer.begin("REPEATABLE READ")

    with raises("P0001", match="read committed"):
        writer.run(f"SELECT {job}", *([stage.chunk(COLD)] if "%s" in job else []))


def test_job_does_not_count_its_own_transaction_among_the_ended(
    stage: Stage, feed: HandFeed, writer: Session, second: Session
) -> None:
    # The race: pg_current_snapshot() takes its own transaction for ended once a later one is. A
    # position noted in a transaction that also writes is passed by T2's flush before that
    # transaction commits.
    writer.begin()
    write(writer, COLD)
    stage.run("CREATE TABLE elsewhere ()")
    writer.run("SELECT lakets._get_chunks_to_tier('metrics')")
    write_and_commit(second, OTHER, 200)
    feed.flush()
    writer.commit()

    assert not stage.tier(COLD)


def test_first_copy_is_not_taken_for_flushed_when_others_commit_during_it(
    stage: Stage, sessions: Callable[[str], Session], gates: Callable[..., Gate]
) -> None:
    # The race: while enable_sync makes the shadow, another transaction commits.
    stage.table()
    stage.run("SELECT lakets.add_tiering_policy('metrics', '1 day')")
    administrator = sessions("administrator")
    gate = gates(administrator, "_create_shadow", "after")
    administrator.start("SELECT lakets.enable_sync('metrics')")
    administrator.wait_blocked_by(gate)
    stage.run("CREATE TABLE elsewhere ()")
    gate.open()
    administrator.finish()
    stage.run(
        "CREATE SCHEMA wal2delta CREATE TABLE tables (table_oid oid, status text, committed_lsn pg_lsn)"
    )
    stage.run(
        "INSERT INTO wal2delta.tables VALUES ('lakets_cdf._shadow_metrics'::regclass, 'STREAMING', '0/1')"
    )

    assert not stage.tier(COLD)


def test_prepared_writer_is_waited_for(
    stage: Stage, feed: HandFeed, writer: Session, second: Session
) -> None:
    writer.begin()
    write(writer, COLD)
    writer.run("PREPARE TRANSACTION 'cold'")
    write_and_commit(second, OTHER, 200)
    feed.flush()
    writer.run("COMMIT PREPARED 'cold'")

    assert not stage.tier(COLD)
