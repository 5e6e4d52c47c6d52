"""Promises 1 to 3: states of the feed, chunks written after their flag, concurrent provers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.isolation.durability.scene import COLD, OTHER, write, write_and_commit

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Session
    from tests.stage import HandFeed, Stage


# What the feed says


@pytest.mark.parametrize("status", ["SKIPPED", "PENDING", "SNAPSHOTTING"])
def test_feed_that_does_not_stream_proves_nothing(stage: Stage, feed: HandFeed, status: str) -> None:
    feed.report(status)

    assert not stage.tier(COLD)
    assert stage.value("SELECT lakets.explain_durability(%s)", stage.chunk(COLD)).endswith(status)


@pytest.mark.parametrize(
    "mishap",
    [
        "DROP SCHEMA wal2delta CASCADE",
        "DELETE FROM wal2delta.tables",
        "UPDATE wal2delta.tables SET committed_lsn = NULL",
    ],
    ids=["gone", "table unknown", "no position"],
)
def test_feed_that_says_nothing_proves_nothing(stage: Stage, feed: HandFeed, mishap: str) -> None:
    stage.run(mishap)

    assert not stage.tier(COLD)


@pytest.mark.parametrize(
    "revoked", ["USAGE ON SCHEMA wal2delta", "SELECT ON wal2delta.tables"], ids=["schema", "table"]
)
def test_feed_that_the_role_cannot_read_proves_nothing(
    stage: Stage, feed: HandFeed, writer: Session, revoked: str
) -> None:
    stage.run(f"REVOKE {revoked} FROM PUBLIC")
    role = f"blind_{stage.conn.info.dbname}"
    stage.run(f"CREATE ROLE {role}")
    try:
        stage.run(
            f"GRANT ALL ON ALL TABLES IN SCHEMA lakets, lakets_cdf, public TO {role};"
            f" GRANT USAGE ON SCHEMA lakets, lakets_cdf TO {role}"
        )
        writer.run(f"SET ROLE {role}")

        assert not writer.value("SELECT lakets.tier_chunk(%s)", stage.chunk(COLD))
    finally:
        writer.run("RESET ROLE")
        stage.run(f"DROP OWNED BY {role}")
        stage.run(f"DROP ROLE {role}")


def test_feed_view_that_fails_for_the_role_proves_nothing(
    stage: Stage, feed: HandFeed, writer: Session
) -> None:
    # A feed may show itself through a view over what this role may not read.
    stage.run(
        "ALTER TABLE wal2delta.tables RENAME TO kept;"
        "CREATE VIEW wal2delta.tables WITH (security_invoker) AS TABLE wal2delta.kept;"
        "GRANT SELECT ON wal2delta.tables TO PUBLIC; REVOKE ALL ON wal2delta.kept FROM PUBLIC"
    )
    role = f"blind_{stage.conn.info.dbname}"
    stage.run(f"CREATE ROLE {role}")
    try:
        stage.run(
            f"GRANT ALL ON ALL TABLES IN SCHEMA lakets, lakets_cdf, public TO {role};"
            f" GRANT USAGE ON SCHEMA lakets, lakets_cdf TO {role}"
        )
        writer.run(f"SET ROLE {role}")

        assert not writer.value("SELECT lakets.tier_chunk(%s)", stage.chunk(COLD))
    finally:
        writer.run("RESET ROLE")
        stage.run(f"DROP OWNED BY {role}")
        stage.run(f"DROP ROLE {role}")


# Flagged, and then written


def test_write_to_a_tiered_chunk_makes_it_a_candidate_again(
    stage: Stage, feed: HandFeed, writer: Session
) -> None:
    stage.tier(COLD)
    write_and_commit(writer, COLD)

    candidates = stage.column("SELECT chunk_name FROM lakets._get_chunks_to_tier('metrics')")

    assert stage.chunk(COLD) in candidates
    assert stage.statuses()[COLD] == "active"


def test_write_to_a_tiered_chunk_is_proved_before_it_is_flagged_again(
    stage: Stage, feed: HandFeed, writer: Session
) -> None:
    stage.tier(COLD)
    write_and_commit(writer, COLD)

    answers = [stage.tier(COLD)]
    status = stage.statuses()[COLD]
    feed.flush()
    answers.append(stage.tier(COLD))

    assert (answers, status) == ([False, True], "active")


def test_write_during_the_proof_is_found_before_the_drop(
    stage: Stage, feed: HandFeed, writer: Session
) -> None:
    # The race: the chunk is flagged while the writer is open, and written when it commits.
    stage.tier(OTHER)
    writer.begin()
    write(writer, COLD)
    flagged = stage.tier(COLD)
    writer.commit()

    dropped = stage.value("SELECT lakets.execute_retention('metrics')")

    assert flagged
    assert stage.statuses()[COLD] != "dropped"
    assert dropped == 3


# Provers among themselves and with writers


def test_second_prover_waits_for_the_first_and_judges_for_itself(
    stage: Stage, feed: HandFeed, sessions: Callable[[str], Session]
) -> None:
    # tier/tier: both of one table.
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run("SELECT lakets.tier_chunk(%s)", stage.chunk(1))
    second.start("SELECT lakets.tier_chunk(%s)", stage.chunk(2))
    second.wait_blocked_by(first)
    first.commit()

    assert second.finish() == [(True,)]
    assert list(stage.statuses().values()) == ["tiered", "tiered", "active", "active"]


def test_provers_of_two_chunks_in_opposite_order_do_not_deadlock(
    stage: Stage, feed: HandFeed, sessions: Callable[[str], Session]
) -> None:
    first, second = sessions("first"), sessions("second")
    first.begin()
    second.begin()
    first.run("SELECT lakets.tier_chunk(%s)", stage.chunk(1))
    second.start("SELECT lakets.tier_chunk(%s)", stage.chunk(2))
    second.wait_blocked_by(first)
    first.run("SELECT lakets.tier_chunk(%s)", stage.chunk(2))
    first.commit()
    second.finish()
    second.run("SELECT lakets.tier_chunk(%s)", stage.chunk(1))
    second.commit()

    assert list(stage.statuses().values()) == ["tiered", "tiered", "active", "active"]


def test_fence_is_not_set_against_an_open_writer(
    stage: Stage, feed: HandFeed, writer: Session, second: Session
) -> None:
    # tier/fence/writer: the prover must neither wait for the writer nor make it wait.
    write_and_commit(second, COLD)
    writer.begin()
    write(writer, OTHER, 200)

    assert not stage.tier(COLD)
    assert stage.value("SELECT fenced FROM lakets._feed_proof") is False
    assert len(feed.unflushed()) == 1


def test_fence_is_set_when_the_open_writer_gave_up(
    stage: Stage, feed: HandFeed, writer: Session, second: Session
) -> None:
    # The race: the prover counts on the writer to move the feed, and the writer rolls back.
    write_and_commit(second, COLD)
    second.begin()
    write(second, COLD, 300)
    writer.begin()
    write(writer, OTHER, 200)
    second.commit()
    stage.tier(COLD)
    writer.rollback()
    feed.flush()

    answers = [stage.tier(COLD)]
    feed.flush()
    answers.append(stage.tier(COLD))

    assert answers[-1]


def test_writer_of_the_row_that_a_fence_touches_loses_nothing(
    stage: Stage, feed: HandFeed, writer: Session, second: Session, sessions: Callable[[str], Session]
) -> None:
    # The race: the fence moves a row of the shadow that a writer is about to look for.
    second.begin()
    write(second, COLD, 200)
    write_and_commit(writer, COLD, 300)
    second.commit()
    prover = sessions("prover")
    prover.begin()
    prover.run("SELECT lakets.tier_chunk(%s)", stage.chunk(COLD))
    assert stage.value(
        "SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND pid = %s", prover.pid
    )
    writer.start("UPDATE metrics SET value = value + 1000")
    writer.wait_blocked_by(prover)
    prover.commit()
    writer.finish()

    assert stage.run("TABLE metrics ORDER BY 1, 2") == stage.run(
        "TABLE lakets_cdf._shadow_metrics ORDER BY 1, 2"
    )
