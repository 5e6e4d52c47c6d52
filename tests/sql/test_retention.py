"""Job 3: what is dropped, what stays, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import HandFeed, Raises, Stage

RETAIN = "SELECT lakets.execute_retention('metrics')"


@pytest.fixture
def plain(stage: Stage) -> Stage:
    """Make a ChronoTable of four expired chunks, not synced."""
    stage.table()
    stage.run("SELECT lakets.add_retention_policy('metrics', '2 days')")
    return stage


@pytest.fixture
def feed(stage: Stage) -> HandFeed:
    """Make a synced one whose chunks are proved durable."""
    feed = stage.synced()
    stage.tier(1)
    return feed


def report(stage: Stage) -> dict[int, str | None]:
    return dict(
        stage.run(
            "SELECT extract(day FROM range_start AT TIME ZONE 'UTC')::integer, blocked_by"
            " FROM lakets.retention_report('metrics')"
        )
    )


def test_expired_chunks_are_dropped_with_their_rows(plain: Stage) -> None:
    plain.run("INSERT INTO metrics VALUES (99, now(), 99)")

    assert plain.value(RETAIN) == 4
    assert plain.column("SELECT id FROM metrics") == [99]
    assert set(plain.statuses().values()) == {"dropped"}
    assert plain.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'metrics\\_2024%%'") == 0


def test_second_run_finds_nothing_left(plain: Stage) -> None:
    plain.run(RETAIN)

    assert plain.value(RETAIN) == 0


def test_chunk_that_straddles_the_cutoff_stays(plain: Stage) -> None:
    plain.run("SELECT lakets.remove_retention_policy('metrics')")
    plain.run("SELECT lakets.add_retention_policy('metrics', now() - '2024-01-03 12:00+00')")

    assert plain.value(RETAIN) == 2
    assert plain.statuses() == {1: "dropped", 2: "dropped", 3: "active", 4: "active"}


def test_only_so_many_chunks_go_in_one_call_oldest_first(plain: Stage) -> None:
    call = "SELECT lakets.execute_retention('metrics', p_max_chunks => 3)"

    counts = [plain.value(call)]
    statuses = plain.statuses()
    counts += [plain.value(call), plain.value(call)]

    assert counts == [3, 1, 0]
    assert statuses[4] == "active"


def test_blocked_chunks_do_not_use_up_the_batch(stage: Stage, feed: HandFeed) -> None:
    stage.run("UPDATE metrics SET value = 0 WHERE id IN (1, 2)")

    dropped = stage.value("SELECT lakets.execute_retention('metrics', p_max_chunks => 2)")

    assert dropped == 2
    assert [day for day, status in stage.statuses().items() if status == "dropped"] == [3, 4]


@pytest.mark.parametrize(
    "change",
    [
        "SELECT lakets.remove_retention_policy('metrics')",
        "UPDATE lakets._policy_registry SET enabled = false",
    ],
    ids=["none", "off"],
)
def test_without_a_policy_nothing_is_dropped(plain: Stage, change: str) -> None:
    plain.run(change)

    assert plain.value(RETAIN) == 0
    assert report(plain) == {}


def test_run_is_stamped_though_nothing_is_dropped(plain: Stage) -> None:
    plain.run(RETAIN)
    plain.run("UPDATE lakets._policy_registry SET retained_at = NULL")

    plain.run(RETAIN)

    assert plain.value("SELECT last_run_at IS NOT NULL FROM lakets.show_retention_policy('metrics')")


def test_dropped_rows_stay_in_the_shadow(stage: Stage, feed: HandFeed) -> None:
    stage.run(RETAIN)

    assert stage.value("SELECT count(*) FROM metrics") == 0
    assert stage.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == 4


def test_what_was_dropped_is_remembered_with_its_size(plain: Stage) -> None:
    plain.run("ANALYZE metrics")

    plain.run(RETAIN)

    assert plain.column(
        "SELECT DISTINCT (row_count, size_bytes > 0)::text FROM lakets._chunk_metadata"
        " WHERE status = 'dropped'"
    ) == ["(1,t)"]


def test_rows_outside_every_chunk_are_never_dropped(plain: Stage) -> None:
    plain.run("INSERT INTO metrics VALUES (99, '1999-01-01', 99)")

    plain.run(RETAIN)

    assert plain.column("SELECT id FROM metrics") == [99]


# The gate


def test_report_says_what_would_go_and_why_the_rest_stays(stage: Stage, feed: HandFeed) -> None:
    stage.rollup("hourly")
    stage.rollup("other")
    stage.run("UPDATE metrics SET value = 0 WHERE id = 2")
    stage.refresh("other")
    flushed = report(stage)
    feed.flush()

    assert flushed == {
        1: None,
        2: "not durable: changes to it are not known to be flushed yet",
        3: None,
        4: None,
    }
    assert report(stage) == {1: None, 2: "not absorbed by RollUp hourly", 3: None, 4: None}
    assert stage.value(RETAIN) == 3


def test_all_rollups_that_hold_a_chunk_back_are_named(plain: Stage) -> None:
    plain.rollup("hourly")
    plain.rollup("Other one")
    plain.run("UPDATE metrics SET value = 0 WHERE id = 2")

    assert report(plain)[2] == "not absorbed by RollUp Other one, hourly"


def test_policy_that_says_tiered_is_gated_without_sync(stage: Stage) -> None:
    stage.table()
    stage.run("SELECT lakets.add_tiered_retention_policy('metrics', '1 day', '2 days')")

    assert stage.value(RETAIN) == 0
    assert set(report(stage).values()) == {"not durable: the table is not synced to Unity Catalog"}


def test_table_that_is_synced_is_gated_whatever_its_policy(stage: Stage) -> None:
    stage.table()
    stage.run("SELECT lakets.add_retention_policy('metrics', '2 days')")
    feed = stage.sync()
    stage.tier(1)
    stage.run("UPDATE metrics SET value = 0 WHERE id = 2")

    counts = [stage.value(RETAIN)]
    feed.flush()
    counts.append(stage.value(RETAIN))

    assert counts == [3, 1]


def test_durable_chunk_need_not_have_been_flagged(stage: Stage, feed: HandFeed) -> None:
    assert "tiered" not in list(stage.statuses().values())[1:]

    assert stage.value(RETAIN) == 4


def test_marked_bucket_keeps_its_chunk(plain: Stage) -> None:
    plain.rollup("hourly")
    plain.run("SELECT lakets.invalidate_rollup_range('hourly', '2024-01-02 23:30', '2024-01-02 23:40')")

    assert report(plain) == {1: None, 2: "not absorbed by RollUp hourly", 3: None, 4: None}


def test_rollup_that_must_be_loaded_anew_keeps_every_chunk(plain: Stage) -> None:
    plain.rollup("hourly")
    plain.run("UPDATE lakets._rollup_registry SET absorbed = NULL")

    assert plain.value(RETAIN) == 0
    plain.refresh("hourly")
    assert plain.value(RETAIN) == 4


def test_rollup_without_tracking_keeps_what_its_watermark_has_not_passed(plain: Stage) -> None:
    plain.rollup("hourly")
    plain.run("SELECT lakets.disable_rollup_invalidation('hourly')")
    plain.run("INSERT INTO metrics VALUES (99, now(), 99)")

    counts = [plain.value(RETAIN)]
    plain.refresh("hourly")
    counts.append(plain.value(RETAIN))

    assert counts == [3, 1]


def test_upper_rollup_holds_nothing_back(plain: Stage) -> None:
    # It reads the lower one's rows, which stay.
    plain.rollup("hourly")
    plain.rollup("daily", reads="hourly", every="1 day")
    plain.run("UPDATE metrics SET value = 50")
    plain.refresh("hourly")

    assert plain.value(RETAIN) == 4
    plain.refresh("daily")
    assert plain.totals("daily") == dict.fromkeys(("1 0", "2 0", "3 0", "4 0"), 50)


def test_force_drops_all_that_is_expired(stage: Stage, feed: HandFeed) -> None:
    stage.rollup("hourly")
    stage.run("UPDATE metrics SET value = 0")
    feed.report("SKIPPED")

    assert stage.value("SELECT lakets.execute_retention('metrics', p_force => true)") == 4


def test_force_does_not_touch_what_is_not_expired(plain: Stage) -> None:
    plain.run("INSERT INTO metrics VALUES (99, now(), 99)")

    plain.run("SELECT lakets.execute_retention('metrics', p_force => true)")

    assert plain.column("SELECT id FROM metrics") == [99]


# Manual changes


def test_chunk_dropped_by_hand_is_noted_as_dropped_and_not_counted(plain: Stage) -> None:
    plain.run("DROP TABLE metrics_20240102_000000")

    assert plain.value(RETAIN) == 3
    assert set(plain.statuses().values()) == {"dropped"}


def test_chunk_detached_by_hand_is_left_to_whoever_did(plain: Stage) -> None:
    plain.run("ALTER TABLE metrics DETACH PARTITION metrics_20240102_000000")

    assert plain.value(RETAIN) == 3
    assert plain.column("SELECT id FROM metrics_20240102_000000") == [2]


def test_chunk_that_something_depends_on_stays_and_the_others_go(plain: Stage) -> None:
    said: list[str] = []
    plain.conn.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    plain.run("SET client_min_messages = warning")
    plain.run("CREATE VIEW reader AS SELECT * FROM metrics_20240102_000000")

    assert plain.value(RETAIN) == 3
    assert plain.statuses() == {1: "dropped", 2: "active", 3: "dropped", 4: "dropped"}
    assert said == ["Chunk public.metrics_20240102_000000 stays: other objects depend on its partition."]


def test_chunks_that_a_foreign_key_points_at_stay_with_its_rows(plain: Stage) -> None:
    said: list[str] = []
    plain.conn.add_notice_handler(lambda notice: said.append(str(notice.message_detail)))
    plain.run("SET client_min_messages = warning")
    plain.run(
        "CREATE TABLE note (id int, at timestamptz,"
        " FOREIGN KEY (id, at) REFERENCES metrics ON DELETE CASCADE);"
        " INSERT INTO note SELECT id, at FROM metrics"
    )

    assert plain.value(RETAIN) == 0
    assert set(plain.statuses().values()) == {"active"}
    assert plain.value("SELECT count(*) FROM note") == 4
    assert len(said) == 4
    assert all("on table public.note" in detail for detail in said)


def test_names_of_partitions_are_taken_as_they_are(stage: Stage) -> None:
    stage.run('CREATE SCHEMA "Über Uns"')
    stage.run('CREATE TABLE "Über Uns"."Größe; x" (at timestamptz)')
    stage.run("SELECT lakets.create_chronotable('Größe; x', 'at', '1 day', 'Über Uns')")
    stage.run("""INSERT INTO "Über Uns"."Größe; x" VALUES ('2024-01-01 12:00+00')""")
    stage.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")
    stage.run("SELECT lakets.add_retention_policy('Größe; x', '2 days', 'Über Uns')")

    assert stage.value("SELECT lakets.execute_retention('Größe; x', 'Über Uns')") == 1
    assert stage.value('SELECT count(*) FROM "Über Uns"."Größe; x"') == 0


# drop_chunks


def test_drop_chunks_drops_active_chunks_and_leaves_tiered_ones(stage: Stage, feed: HandFeed) -> None:
    assert stage.value("SELECT lakets.drop_chunks('metrics', '2 days')") == 3
    assert stage.statuses() == {1: "tiered", 2: "dropped", 3: "dropped", 4: "dropped"}


@pytest.mark.parametrize("age", [None, "0", "-1 day"])
def test_drop_chunks_wants_an_age(plain: Stage, raises: Raises, age: str | None) -> None:
    with raises("P0001", match="p_older_than"):
        plain.run("SELECT lakets.drop_chunks('metrics', %s)", age)


@pytest.mark.parametrize(
    "call",
    [
        "SELECT lakets.execute_retention('nowhere')",
        "SELECT lakets.drop_chunks('nowhere', '1 day')",
        "SELECT * FROM lakets.retention_report('nowhere')",
    ],
)
def test_unknown_table_is_named(plain: Stage, raises: Raises, call: str) -> None:
    with raises("P0001", match="nowhere"):
        plain.run(call)


@pytest.mark.parametrize("call", [RETAIN, "SELECT lakets.drop_chunks('metrics', '1 day')"])
def test_retention_refuses_a_transaction_that_cannot_see_new_commits(
    plain: Stage, raises: Raises, call: str
) -> None:
    plain.run("BEGIN ISOLATION LEVEL REPEATABLE READ")

    with raises("P0001", match="read committed"):
        plain.run(call)


@pytest.mark.parametrize("count", [0, -1])
def test_batch_must_hold_a_chunk(plain: Stage, raises: Raises, count: int) -> None:
    with raises("P0001", match="p_max_chunks"):
        plain.run("SELECT lakets.execute_retention('metrics', p_max_chunks => %s)", count)
