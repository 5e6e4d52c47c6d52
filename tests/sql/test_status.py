"""Status reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.stage import HandFeed, Raises, Stage


@pytest.fixture
def feed(stage: Stage) -> HandFeed:
    """Make a synced ChronoTable of four cold chunks, of which the first is tiered."""
    feed = stage.synced()
    stage.tier(1)
    return feed


def status(stage: Stage, name: str = "metrics") -> dict[str, Any]:
    cursor = stage.conn.execute("SELECT * FROM lakets.show_tiering_status(%s)", [name])
    assert cursor.description is not None
    row = cursor.fetchone()
    assert row is not None
    return dict(zip([column.name for column in cursor.description], row, strict=True))


def metrics(stage: Stage, name: str) -> dict[tuple[str, ...], float]:
    rows = stage.run("SELECT labels, metric_value FROM lakets.lakets_metrics() WHERE metric_name = %s", name)
    return {tuple(str(labels[key]) for key in sorted(labels)): value for labels, value in rows}


# Tiering


def test_tiering_status_counts_chunks(stage: Stage, feed: HandFeed) -> None:
    stage.run("SELECT lakets.execute_retention('metrics', p_max_chunks => 1)")
    stage.tier(2)
    shown = status(stage)

    around_now = stage.value(
        "SELECT count(*) FROM lakets._chunk_metadata WHERE range_end > now() - interval '1 day'"
    )
    assert (shown["active_chunks"], shown["tiered_chunks"], shown["pending_chunks"]) == (2 + around_now, 1, 2)
    assert shown["reclaimable_bytes"] == stage.value(
        "SELECT pg_total_relation_size('metrics_20240102_000000')"
    )
    assert shown["reclaimed_bytes"] > 0


def test_tiering_status_of_a_flushed_table_is_caught_up(stage: Stage, feed: HandFeed) -> None:
    shown = status(stage)

    assert (shown["cdf_status"], shown["caught_up"], shown["cdf_lag_bytes"]) == ("STREAMING", True, 0)


def test_tiering_status_shows_how_far_the_feed_is_behind(stage: Stage, feed: HandFeed) -> None:
    stage.run("INSERT INTO metrics VALUES (9, '2024-01-01 01:00+00', 9)")
    behind = status(stage)
    feed.flush()
    ahead = status(stage)

    assert (behind["caught_up"], behind["cdf_lag_bytes"] > 0) == (False, True)
    assert (ahead["caught_up"], ahead["cdf_lag_bytes"]) == (True, 0)


@pytest.mark.parametrize(
    ("said", "shown"),
    [("STREAMING", "STREAMING"), ("SKIPPED", "SKIPPED"), ("PENDING", "NONE"), ("SNAPSHOTTING", "NONE")],
)
def test_tiering_status_shows_the_feeds_own(stage: Stage, feed: HandFeed, said: str, shown: str) -> None:
    feed.report(said)

    assert status(stage)["cdf_status"] == shown


def test_tiering_status_without_a_feed_says_none(stage: Stage, feed: HandFeed) -> None:
    stage.run("DROP SCHEMA wal2delta CASCADE")
    shown = status(stage)

    assert (shown["cdf_status"], shown["caught_up"], shown["cdf_lag_bytes"]) == ("NONE", False, None)


def test_tiering_status_shows_the_policy_and_its_last_run(stage: Stage, feed: HandFeed) -> None:
    before = status(stage)["last_run_at"]
    stage.run("SELECT lakets._get_chunks_to_tier('metrics')")
    shown = status(stage)

    assert before is None
    assert shown["last_run_at"] is not None
    assert shown["after"] == "1 day"


def test_tiering_status_lists_what_is_synced_or_tiered(stage: Stage, feed: HandFeed) -> None:
    stage.table("plain", days=())
    stage.table("wanted", days=())
    stage.run("SELECT lakets.add_tiering_policy('wanted', '1 day')")

    assert stage.column("SELECT table_name FROM lakets.show_tiering_status()") == ["metrics", "wanted"]
    assert status(stage, "plain")["after"] is None


def test_tiering_status_of_an_unknown_table_is_refused(stage: Stage, raises: Raises) -> None:
    with raises("P0001", match="public.nowhere is not a ChronoTable"):
        stage.run("SELECT * FROM lakets.show_tiering_status('nowhere')")


def test_looking_changes_nothing(stage: Stage, feed: HandFeed) -> None:
    stage.run("UPDATE metrics SET value = 0")
    state = "SELECT proven::text, observed::text, fenced FROM lakets._feed_proof"
    before = stage.run(state)

    stage.run("SELECT * FROM lakets.show_tiering_status()")
    stage.run("SELECT * FROM lakets.lakets_metrics()")

    assert stage.run(state) == before


def test_status_is_readable_in_a_read_only_transaction_with_an_old_snapshot(
    stage: Stage, feed: HandFeed
) -> None:
    stage.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    assert status(stage)["cdf_status"] == "STREAMING"
    assert stage.run("SELECT * FROM lakets.lakets_metrics()")
    assert stage.run("SELECT * FROM lakets.retention_report('metrics')")
    stage.run("COMMIT")


# The feed's position


def test_position_of_the_feed_is_shown_while_it_streams(stage: Stage, feed: HandFeed) -> None:
    feed.move(4711)
    shown = stage.value("SELECT lakets._cdf_committed_lsn('_shadow_metrics') - '0/0'")
    feed.report("SKIPPED")

    assert shown == 4711
    assert stage.value("SELECT lakets._cdf_committed_lsn('_shadow_metrics')") is None


@pytest.mark.parametrize("name", ["_shadow_nothing", "lakets_cdf._shadow_nothing", "", None])
def test_position_of_no_shadow_is_null(stage: Stage, feed: HandFeed, name: str | None) -> None:
    assert stage.value("SELECT lakets._cdf_committed_lsn(%s)", name) is None


# Chunks and RollUps


def test_chunk_health_counts_by_status(stage: Stage, feed: HandFeed) -> None:
    stage.run("SELECT lakets.execute_retention('metrics', p_max_chunks => 1)")
    stage.tier(2)
    total, active, tiered, dropped, oldest = stage.run(
        "SELECT total_chunks, active_chunks, tiered_chunks, dropped_chunks, oldest_active"
        " FROM lakets.chunk_health()"
    )[0]

    assert total == active + tiered + dropped
    assert (tiered, dropped) == (1, 1)
    assert oldest.day == 3


def test_metrics_count_chunks_by_status(stage: Stage, feed: HandFeed) -> None:
    counts = metrics(stage, "lakets_chunks_total")

    assert (counts["tiered",], counts["dropped",]) == (1, 0)
    assert counts["active",] >= 3


def test_metrics_count_tables_and_policies(stage: Stage, feed: HandFeed) -> None:
    assert metrics(stage, "lakets_chronotables_total") == {(): 1}
    assert metrics(stage, "lakets_policies_total") == {("tiered_retention",): 1}
    assert metrics(stage, "lakets_sync_enabled") == {("public.metrics",): 1}
    assert metrics(stage, "lakets_database_size_bytes")[()] > 1e6


def test_metrics_estimate_the_rows_of_all_chunks(stage: Stage, feed: HandFeed) -> None:
    stage.run("ANALYZE metrics")

    assert metrics(stage, "lakets_estimated_rows") == {
        ("public.metrics",): stage.value("SELECT count(*) FROM metrics")
    }


def test_metrics_follow_tiering(stage: Stage, feed: HandFeed) -> None:
    stage.run("INSERT INTO metrics VALUES (9, '2024-01-01 01:00+00', 9)")

    assert metrics(stage, "lakets_tiering_pending_chunks") == {("public.metrics",): 3}
    assert metrics(stage, "lakets_tiering_tiered_chunks_total") == {("public.metrics",): 1}
    assert metrics(stage, "lakets_tiering_caught_up") == {("public.metrics",): 0}
    feed.flush()
    assert metrics(stage, "lakets_tiering_caught_up") == {("public.metrics",): 1}


def test_metrics_count_rows_outside_every_chunk(stage: Stage, feed: HandFeed) -> None:
    stage.run("INSERT INTO metrics VALUES (9, '1999-01-01', 9), (9, 'infinity', 9)")

    assert metrics(stage, "lakets_rows_outside_chunks") == {("public.metrics",): 2}


def test_metrics_of_other_tables_are_told_to_a_role_that_may_not_read_one(
    stage: Stage, feed: HandFeed
) -> None:
    stage.table("events")
    stage.run("CREATE ROLE watcher; GRANT USAGE ON SCHEMA lakets TO watcher")
    stage.run("GRANT SELECT ON ALL TABLES IN SCHEMA lakets TO watcher")
    stage.run("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lakets TO watcher; GRANT SELECT ON events TO watcher")
    stage.run("GRANT SELECT ON events_default TO watcher")
    try:
        stage.run("SET ROLE watcher")

        assert metrics(stage, "lakets_rows_outside_chunks") == {
            ("public.events",): 0,
            ("public.metrics",): None,
        }
    finally:
        stage.run("RESET ROLE; DROP OWNED BY watcher; DROP ROLE watcher")


def test_metrics_tell_how_long_ago_a_rollup_was_refreshed(stage: Stage) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.rollup("never")
    stage.run(
        "UPDATE lakets._rollup_registry SET last_refreshed_at = now() - interval '1 hour'"
        " WHERE name = 'hourly'"
    )

    lag = metrics(stage, "lakets_rollup_refresh_lag_seconds")

    assert lag["hourly",] == pytest.approx(3600, abs=60)
    assert lag.keys() == {("hourly",)}


def test_rollups_are_listed_in_refresh_order(stage: Stage) -> None:
    stage.table()
    stage.rollup("b_hourly")
    stage.rollup("a_daily", reads="b_hourly", every="1 day")
    ids = dict(stage.run("SELECT name, id FROM lakets._rollup_registry"))

    assert stage.run("SELECT rollup_name, depends_on_names, refresh_order FROM lakets.show_rollup_dag()") == [
        ("b_hourly", [], 1),
        ("a_daily", ["b_hourly"], 2),
    ]
    assert stage.run(
        "SELECT name, rollup_table, source_table, bucket_column, depends_on FROM lakets.show_rollups()"
    ) == [
        ("a_daily", "_rollup_a_daily", "public.metrics", "bucket", [ids["b_hourly"]]),
        ("b_hourly", "_rollup_b_hourly", "public.metrics", "bucket", []),
    ]
    assert stage.value("SELECT lakets._build_rollup_dag()") == [ids["b_hourly"], ids["a_daily"]]
    assert stage.value("SELECT lakets._build_rollup_dag(ARRAY[%s])", ids["a_daily"]) == [ids["a_daily"]]


def test_the_source_of_a_rollup_on_rollups_is_the_table_beneath_unless_there_are_several(
    stage: Stage,
) -> None:
    stage.table("metrics")
    stage.table("others")
    stage.rollup("of_metrics")
    stage.rollup("of_others", reads="others")
    query = (
        "SELECT lakets.time_bucket('1 day', u.bucket) AS bucket, sum(u.n) AS n FROM (SELECT bucket, n"
        " FROM _rollup_of_metrics UNION ALL SELECT bucket, n FROM _rollup_of_others) AS u GROUP BY 1"
    )
    stage.run("SELECT lakets.create_rollup('both', %s, '1 day')", query)

    sources = dict(stage.run("SELECT name, source_table FROM lakets.show_rollups()"))

    assert sources == {"of_metrics": "public.metrics", "of_others": "public.others", "both": "N/A"}
