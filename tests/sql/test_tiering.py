"""Job 2: which chunks are candidates, what flagging does, and which changes are kept in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import HandFeed, Raises, Stage

CANDIDATES = "SELECT chunk_name FROM lakets._get_chunks_to_tier('metrics')"


@pytest.fixture
def feed(stage: Stage) -> HandFeed:
    """Make a synced ChronoTable of four cold chunks; all it holds is flushed."""
    return stage.synced()


def explain(stage: Stage, day: int) -> str | None:
    reason = stage.value("SELECT lakets.explain_durability(%s)", stage.chunk(day))
    return None if reason is None else str(reason)


# Candidates


def test_candidates_are_the_cold_active_chunks_oldest_first(stage: Stage, feed: HandFeed) -> None:
    stage.tier(2)

    assert stage.column(CANDIDATES) == [stage.chunk(day) for day in (1, 3, 4)]


def test_chunk_that_is_not_wholly_cold_is_no_candidate(stage: Stage, feed: HandFeed) -> None:
    stage.run("SELECT lakets.remove_retention_policy('metrics')")
    stage.run("SELECT lakets.add_tiering_policy('metrics', now() - '2024-01-03 23:59+00')")

    assert stage.column(CANDIDATES) == [stage.chunk(day) for day in (1, 2)]


@pytest.mark.parametrize(
    "mishap",
    [
        "SELECT lakets.remove_retention_policy('metrics')",
        "UPDATE lakets._policy_registry SET enabled = false",
        "UPDATE wal2delta.tables SET status = 'SNAPSHOTTING'",
        "DROP SCHEMA wal2delta CASCADE",
        "SELECT lakets.disable_sync('metrics')",
    ],
    ids=["no policy", "policy off", "not streaming", "no feed", "not synced"],
)
def test_there_are_no_candidates_without(stage: Stage, feed: HandFeed, mishap: str) -> None:
    stage.run(mishap)

    assert stage.column(CANDIDATES) == []


def test_looking_for_candidates_stamps_the_run(stage: Stage, feed: HandFeed) -> None:
    stage.column(CANDIDATES)

    assert stage.value("SELECT last_run_at IS NOT NULL FROM lakets.show_tiering_policy('metrics')")


def test_each_job_stamps_its_own_run_of_a_policy_of_both(stage: Stage, feed: HandFeed) -> None:
    query = """SELECT tiering.last_run_at, retention.last_run_at
                 FROM lakets.show_tiering_policy('metrics') AS tiering,
                      lakets.show_retention_policy('metrics') AS retention"""
    assert stage.run(query) == [(None, None)]

    stage.column(CANDIDATES)
    ((tiered, retained),) = stage.run(query)
    stage.run("SELECT lakets.execute_retention('metrics')")

    assert tiered is not None
    assert retained is None
    ((tiered_then, retained),) = stage.run(query)
    assert tiered_then == tiered < retained


# Flagging


def test_flagging_records_when_and_how_large(stage: Stage, feed: HandFeed) -> None:
    stage.run("ANALYZE metrics")

    stage.tier(1)

    assert stage.run(
        "SELECT status, tiered_at IS NOT NULL, row_count, size_bytes > 0 FROM lakets._chunk_metadata"
        " WHERE chunk_name = %s",
        stage.chunk(1),
    ) == [("tiered", True, 1, True)]


def test_flagging_again_keeps_the_first_time(stage: Stage, feed: HandFeed) -> None:
    query = "SELECT tiered_at FROM lakets._chunk_metadata WHERE chunk_name = %s"
    stage.tier(1)
    before = stage.value(query, stage.chunk(1))

    assert stage.tier(1)
    assert stage.value(query, stage.chunk(1)) == before


def test_flagging_drops_nothing(stage: Stage, feed: HandFeed) -> None:
    stage.tier(1)

    assert stage.value("SELECT count(*) FROM metrics") == 4


def test_untiered_chunk_is_a_candidate_again(stage: Stage, feed: HandFeed) -> None:
    stage.tier(1)

    stage.run("SELECT lakets.untier_chunk(%s)", stage.chunk(1))

    assert stage.statuses()[1] == "active"
    assert stage.chunk(1) in stage.column(CANDIDATES)


def test_deferral_is_explained_by_a_notice(stage: Stage, feed: HandFeed) -> None:
    said: list[str] = []
    stage.conn.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    stage.run("SET client_min_messages = notice")
    feed.report("SKIPPED")

    stage.tier(1)

    assert said == [
        f"Chunk {stage.chunk(1)} is deferred: the change feed of _shadow_metrics is not streaming: SKIPPED."
    ]


@pytest.mark.parametrize(
    ("mishap", "reason"),
    [
        ("SELECT 1", None),
        ("UPDATE metrics SET value = 0 WHERE id = 1", "changes to it are not known to be flushed yet"),
        ("UPDATE metrics SET value = 0 WHERE id = 2", None),
        ("SELECT lakets.disable_sync('metrics')", "the table is not synced to Unity Catalog"),
        ("DROP TABLE lakets_cdf._shadow_metrics", "is not streaming: NONE"),
        ("ALTER TABLE metrics ADD COLUMN more text", "the columns of lakets_cdf._shadow_metrics differ"),
        (
            "ALTER TABLE metrics ALTER COLUMN value TYPE numeric",
            "the columns of lakets_cdf._shadow_metrics differ",
        ),
        ("ALTER TABLE metrics DISABLE TRIGGER lakets_track_update", "a change tracking trigger of the table"),
        ("UPDATE lakets._feed_proof SET proven = NULL, observed = NULL", "not yet passed a known position"),
        (
            "UPDATE lakets._feed_proof SET proven = '9000000000:9000000000:', observed = NULL",
            "not yet passed a known position",
        ),
    ],
    ids=[
        "durable",
        "written",
        "another written",
        "not synced",
        "no shadow",
        "new column",
        "other type",
        "not tracked",
        "nothing known",
        "restored from another cluster",
    ],
)
def test_reason_to_defer_is_told(stage: Stage, feed: HandFeed, mishap: str, reason: str | None) -> None:
    stage.tier(1)
    stage.run(mishap)

    found = explain(stage, 1)

    assert (found is None) if reason is None else (found is not None and reason in found)


def test_explaining_changes_nothing(stage: Stage, feed: HandFeed) -> None:
    stage.run("UPDATE metrics SET value = 0")
    state = "SELECT proven::text, observed::text, fenced FROM lakets._feed_proof"
    before = stage.run(state)

    explain(stage, 1)

    assert stage.run(state) == before
    assert len(feed.unflushed()) == 1


def test_what_another_cluster_proved_counts_for_nothing(stage: Stage, feed: HandFeed) -> None:
    # As after a restore: the ids of its transactions had come further than ours.
    stage.tier(1)
    stage.run("UPDATE lakets._feed_proof SET proven = '9000000000:9000000000:', observed = NULL")
    stage.run("UPDATE metrics SET value = 0 WHERE id = 1")

    answers = [stage.tier(1), stage.tier(1)]
    feed.flush()

    assert [*answers, stage.tier(1)] == [False, False, True]


def test_changes_that_another_cluster_stamped_are_proved_anew(stage: Stage, feed: HandFeed) -> None:
    # As after a restore: stamps from the future are in no snapshot, and would be unproved for good.
    stage.run("UPDATE metrics SET value = 0 WHERE id = 1")
    stage.run("UPDATE lakets._change_log SET xid = '8999999999'")
    stage.run("UPDATE lakets._feed_proof SET proven = '9000000000:9000000000:', observed = NULL")

    answers = []
    for _ in range(4):
        stage.run("SELECT * FROM lakets._get_chunks_to_tier('metrics')")
        answers.append(stage.tier(1))
        feed.flush()

    assert (answers[0], answers[-1]) == (False, True)


@pytest.mark.parametrize(
    "call", ["lakets.tier_chunk(%s)", "lakets.untier_chunk(%s)", "lakets.explain_durability(%s)"]
)
def test_unknown_chunk_is_named(stage: Stage, feed: HandFeed, raises: Raises, call: str) -> None:
    with raises("P0001", match="Chunk public.nowhere does not exist"):
        stage.run(f"SELECT {call}", "public.nowhere")


RETAIN = "SELECT lakets.execute_retention('metrics')"
FORCE = "SELECT lakets.execute_retention('metrics', p_force => true)"
DROP = "SELECT lakets.drop_chunks('metrics', '1 day'::interval)"


@pytest.mark.parametrize("drop", [RETAIN, FORCE, DROP], ids=["retention", "force", "drop_chunks"])
def test_chunk_dropped_after_its_proof_counts_as_tiered(stage: Stage, feed: HandFeed, drop: str) -> None:
    stage.run(drop)

    assert stage.tier(1)
    assert explain(stage, 1) is None
    assert stage.statuses()[1] == "dropped"


@pytest.mark.parametrize("drop", [FORCE, DROP], ids=["force", "drop_chunks"])
def test_chunk_dropped_before_its_proof_is_not_durable(
    stage: Stage, feed: HandFeed, raises: Raises, drop: str
) -> None:
    stage.column(CANDIDATES)  # from here on it is known what the feed has flushed
    stage.run("INSERT INTO metrics VALUES (9, %s, 9)", stage.at(1, 13))
    stage.run(drop)
    feed.flush()

    with raises("P0001", match="already dropped from Lakebase, before it was proved durable"):
        stage.tier(1)
    assert explain(stage, 1) == "it was dropped from Lakebase before it was proved durable"
    assert stage.tier(2)


def test_a_row_that_comes_for_a_dropped_chunk_must_be_flushed_too(stage: Stage, feed: HandFeed) -> None:
    stage.run(RETAIN)
    stage.run("INSERT INTO metrics VALUES (9, %s, 9)", stage.at(1, 13))

    assert not stage.tier(1)
    assert explain(stage, 1) is not None
    feed.flush()

    assert stage.tier(1)
    assert stage.statuses()[1] == "dropped"


def test_chunk_flagged_and_then_changed_is_not_durable_when_it_is_dropped(
    stage: Stage, feed: HandFeed
) -> None:
    assert stage.tier(1)
    stage.run("UPDATE metrics SET value = 0 WHERE at < %s", stage.at(2))

    stage.run(FORCE)

    assert explain(stage, 1) is not None
    assert explain(stage, 2) is None


def test_chunk_dropped_before_the_table_was_synced_is_not_durable(stage: Stage) -> None:
    stage.table()
    stage.run(f"{DROP[:-1]}, p_max_chunks => 1)")

    stage.sync()

    assert explain(stage, 1) is not None
    assert explain(stage, 2) is None


def test_flag_of_a_dropped_chunk_cannot_be_removed(stage: Stage, feed: HandFeed, raises: Raises) -> None:
    stage.run(RETAIN)

    with raises("P0001", match="already dropped"):
        stage.run("SELECT lakets.untier_chunk(%s)", stage.chunk(1))


@pytest.mark.parametrize("table", ["nowhere", "plain"])
def test_candidates_of_what_is_no_chronotable_are_refused(stage: Stage, raises: Raises, table: str) -> None:
    stage.run("CREATE TABLE plain ()")

    with raises("P0001", match=f"public.{table} is not a ChronoTable"):
        stage.run("SELECT * FROM lakets._get_chunks_to_tier(%s)", table)


def test_one_tables_changes_do_not_defer_another(stage: Stage, feed: HandFeed) -> None:
    other = stage.synced("other")
    stage.tier(1)
    stage.run("UPDATE metrics SET value = 0")

    assert stage.tier(1, "other")
    assert not stage.tier(1)
    assert other.unflushed() == []


def test_row_without_a_time_defers_no_chunk(stage: Stage) -> None:
    feed = stage.synced(keyed=False)
    stage.tier(1)
    stage.run("INSERT INTO metrics VALUES (9, NULL, 9)")

    assert stage.tier(1)
    assert len(feed.unflushed()) == 1


# The change log


def prune(stage: Stage) -> None:
    stage.run("SELECT lakets._prune_change_log(reg) FROM lakets._chronotable_registry AS reg")


def remembered(stage: Stage) -> int:
    return int(stage.value("SELECT count(*) FROM lakets._change_log"))


def test_changes_that_nobody_waits_for_are_forgotten(stage: Stage) -> None:
    stage.table()

    prune(stage)

    assert remembered(stage) == 0


def test_changes_that_are_not_flushed_are_remembered(stage: Stage, feed: HandFeed) -> None:
    stage.tier(1)
    prune(stage)
    before = remembered(stage)
    stage.run("UPDATE metrics SET value = 0 WHERE id = 1")

    prune(stage)

    assert (before, remembered(stage)) == (0, 1)
    assert not stage.tier(1)


def test_changes_that_a_rollup_has_not_absorbed_are_remembered(stage: Stage, feed: HandFeed) -> None:
    stage.rollup("hourly")
    stage.run("UPDATE metrics SET value = 0 WHERE id = 1")
    feed.flush()
    stage.tier(1)

    prune(stage)

    assert remembered(stage) > 0
    stage.refresh("hourly")
    assert stage.difference("hourly") == []


def test_changes_that_an_untracked_rollup_does_not_want_are_forgotten(stage: Stage) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.run("SELECT lakets.disable_rollup_invalidation('hourly')")
    stage.run("UPDATE metrics SET value = 0 WHERE id = 1")

    prune(stage)

    assert remembered(stage) == 0


def test_log_of_a_table_that_is_tiered_and_refreshed_does_not_grow(stage: Stage, feed: HandFeed) -> None:
    stage.rollup("hourly")
    sizes = []
    for value in range(6):
        stage.run("UPDATE metrics SET value = %s", value)
        stage.refresh("hourly")
        feed.flush()
        stage.column(CANDIDATES)
        sizes.append(remembered(stage))

    assert max(sizes[2:]) <= sizes[1]


# Without a feed

LOGGED = "SELECT count(*) FROM lakets._change_log"
GROW = (
    "INSERT INTO lakets._change_log (chronotable_id, min_time, max_time) SELECT reg.id, %s, %s"
    " FROM lakets._chronotable_registry AS reg, generate_series(1, %s)"
)


@pytest.fixture
def offline(stage: Stage) -> Stage:
    """Make a synced ChronoTable that no feed follows."""
    stage.table()
    stage.run("SELECT lakets.enable_sync('metrics')")
    return stage


@pytest.mark.parametrize(
    "job",
    ["SELECT * FROM lakets._get_chunks_to_tier('metrics')", "SELECT lakets.execute_retention('metrics')"],
    ids=["tiering", "retention"],
)
def test_the_change_log_does_not_grow_for_good_without_a_feed(offline: Stage, job: str) -> None:
    offline.run(GROW, offline.at(1), offline.at(1), 10_000)
    offline.run(job)

    assert offline.value(LOGGED) == 0


def test_a_short_change_log_is_kept_until_the_feed_comes(offline: Stage) -> None:
    offline.run("SELECT * FROM lakets._get_chunks_to_tier('metrics')")

    assert offline.value(LOGGED) > 0


def test_a_rollup_keeps_what_it_has_not_absorbed(offline: Stage) -> None:
    offline.rollup("hourly")
    offline.run("INSERT INTO metrics VALUES (9, %s, 9)", offline.at(1))
    offline.run(GROW, offline.at(1), offline.at(1), 10_000)
    offline.run("SELECT * FROM lakets._get_chunks_to_tier('metrics')")

    assert offline.value(LOGGED) > 10_000
    offline.refresh("hourly")
    assert offline.difference("hourly") == []


def test_what_was_forgotten_is_not_taken_for_durable_when_the_feed_comes(offline: Stage) -> None:
    offline.run(GROW, offline.at(1), offline.at(1), 10_000)
    offline.run("SELECT * FROM lakets._get_chunks_to_tier('metrics')")
    offline.run("SELECT lakets.add_tiering_policy('metrics', '1 day')")
    feed = offline.sync()
    feed.move(None)
    feed.move(1)

    assert not offline.tier(1)
    assert not offline.tier(1)
    feed.flush()
    assert offline.tier(1)
