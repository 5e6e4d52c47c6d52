"""Retention beside the other jobs: the second one waits, and then checks again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.isolation.retention.scene import REPORT, RETAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Gate, Session
    from tests.stage import HandFeed, Stage


def test_second_retention_waits_and_finds_nothing_left(
    stage: Stage, feed: HandFeed, retention: Session, sessions: Callable[[str], Session]
) -> None:
    second = sessions("second")
    retention.begin()
    retention.run(RETAIN)
    second.start(RETAIN)
    second.wait_blocked_by(retention)
    retention.commit()

    assert second.finish() == [(0,)]


def test_tiering_waits_for_retention_and_takes_its_proof(
    stage: Stage, feed: HandFeed, retention: Session, sessions: Callable[[str], Session]
) -> None:
    prover = sessions("prover")
    retention.begin()
    retention.run(RETAIN)
    prover.start("SELECT lakets.tier_chunk(%s)", stage.chunk(2))
    prover.wait_blocked_by(retention)
    retention.commit()

    assert prover.finish() == [(True,)]
    assert set(stage.statuses().values()) == {"dropped"}


def test_retention_waits_for_tiering_and_then_drops(
    stage: Stage, feed: HandFeed, retention: Session, sessions: Callable[[str], Session]
) -> None:
    prover = sessions("prover")
    prover.begin()
    prover.run("SELECT lakets.tier_chunk(%s)", stage.chunk(3))
    retention.start(RETAIN)
    retention.wait_blocked_by(prover)
    prover.commit()

    assert retention.finish() == [(4,)]


@pytest.mark.parametrize("first", ["retention", "candidates"])
def test_candidates_and_retention_do_not_deadlock_over_the_policy(
    stage: Stage,
    feed: HandFeed,
    retention: Session,
    sessions: Callable[[str], Session],
    gates: Callable[..., Gate],
    first: str,
) -> None:
    # Both stamp the policy and learn about the feed: in the same order, whoever comes first.
    candidates = sessions("candidates")
    calls = {
        "retention": (retention, RETAIN),
        "candidates": (candidates, "SELECT lakets._get_chunks_to_tier('metrics')"),
    }
    (early, early_call) = calls.pop(first)
    ((late, late_call),) = calls.values()
    gate = gates(early, "_prove", "after")
    early.start(early_call)
    early.wait_blocked_by(gate)
    late.start(late_call)
    late.wait_blocked_by(early)
    gate.open()

    early.finish()
    late.finish()


# ensure/retention


def test_new_chunks_wait_for_retention_and_do_not_bring_a_dropped_range_back(
    stage: Stage, feed: HandFeed, retention: Session, sessions: Callable[[str], Session]
) -> None:
    partitioner = sessions("partitioner")
    retention.begin()
    retention.run(RETAIN)
    partitioner.start(
        "SELECT lakets._ensure_partitions(id, p_range_start => '2024-01-01', p_range_end => '2024-01-08')"
        " FROM lakets._chronotable_registry"
    )
    partitioner.wait_blocked_by(retention)
    retention.commit()

    assert partitioner.finish() == [(3,)]
    assert stage.statuses() == dict.fromkeys((1, 2, 3, 4), "dropped") | dict.fromkeys((5, 6, 7), "active")


def test_retention_waits_for_new_chunks_and_judges_them_too(
    stage: Stage, feed: HandFeed, retention: Session, sessions: Callable[[str], Session]
) -> None:
    partitioner = sessions("partitioner")
    partitioner.begin()
    partitioner.run(
        "SELECT lakets._ensure_partitions(id, p_range_start => '2024-01-01', p_range_end => '2024-01-08')"
        " FROM lakets._chronotable_registry"
    )
    retention.start(RETAIN)
    retention.wait_blocked_by(partitioner)
    partitioner.commit()

    assert retention.finish() == [(7,)]


# sync/retention


def test_table_synced_while_retention_waits_is_gated(
    stage: Stage, sessions: Callable[[str], Session]
) -> None:
    # The race: retention read that the table is not synced, and waited; by now its rows are on
    # their way.
    stage.table()
    stage.run("SELECT lakets.add_retention_policy('metrics', '2 days')")
    administrator, retention = sessions("administrator"), sessions("retention")
    administrator.begin()
    administrator.run("SELECT lakets.enable_sync('metrics')")
    retention.start(RETAIN)
    retention.wait_blocked_by(administrator)
    administrator.commit()

    assert retention.finish() == [(0,)]
    assert stage.value(REPORT, stage.chunk(1)).startswith("not durable: ")
