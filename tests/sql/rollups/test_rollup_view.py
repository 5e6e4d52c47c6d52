"""The real-time view of a RollUp, and what creation says of buckets that lack rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.rollups.scene import SUMS, drop_days

if TYPE_CHECKING:
    from tests.stage import Stage


def test_view_is_the_rollup_and_the_live_rows_above_it(stage: Stage) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.run("SELECT lakets.create_rollup_view('hourly', %s)", SUMS)
    stage.run("INSERT INTO metrics VALUES (98, '2024-01-01 05:00+00', 98), (99, '2024-01-05 05:00+00', 99)")

    live = stage.run("SELECT bucket, total FROM _rollup_rt_hourly ORDER BY 1")
    kept = stage.run("SELECT bucket, total FROM _rollup_hourly ORDER BY 1")
    stage.refresh("hourly")

    assert [total for _, total in live] == [1, 2, 3, 4, 99]
    assert live[:4] == kept
    assert stage.run("TABLE _rollup_rt_hourly ORDER BY 1") == stage.run("TABLE _rollup_hourly ORDER BY 1")


def test_view_of_an_empty_rollup_shows_what_is_live(stage: Stage) -> None:
    stage.table(rows=False)
    stage.rollup("hourly")
    stage.run("SELECT lakets.create_rollup_view('hourly', %s)", SUMS)
    stage.run("INSERT INTO metrics VALUES (99, '2024-01-05 05:00+00', 99)")

    assert stage.column("SELECT total FROM _rollup_rt_hourly") == [99]


@pytest.mark.parametrize("reads", ["metrics", "daily"])
def test_view_does_not_compute_a_bucket_from_the_part_of_its_rows_that_is_left(
    stage: Stage, reads: str
) -> None:
    # The query filters out the bucket of all days, so the RollUp has no row for it.
    stage.table(days=range(1, 8))
    stage.run("UPDATE metrics SET value = 0 WHERE at < '2024-01-02'")
    stage.rollup("daily", every="1 day")
    of_table = (
        "SELECT lakets.time_bucket('14 days', at, '2024-01-01+00'::timestamptz) AS bucket,"
        " sum(value) AS total FROM metrics GROUP BY 1 HAVING min(value) > 0"
    )
    of_days = (
        "SELECT lakets.time_bucket('14 days', bucket, '2024-01-01+00'::timestamptz) AS bucket,"
        " sum(total) AS total FROM _rollup_daily GROUP BY 1 HAVING min(total) > 0"
    )
    query = of_table if reads == "metrics" else of_days
    stage.rollup("fortnightly", every="14 days", reads=reads, query=query)
    stage.run("SELECT lakets.create_rollup_view('fortnightly', %s)", of_table)
    assert stage.run("SELECT * FROM _rollup_rt_fortnightly") == []

    drop_days(stage, 3)
    stage.run("INSERT INTO metrics VALUES (99, '2024-01-20 05:00+00', 99)")

    assert stage.column("SELECT total FROM _rollup_rt_fortnightly") == [99]


def test_view_shows_live_rows_before_a_chunk_that_was_dropped_out_of_turn(stage: Stage) -> None:
    # A chunk in the future, of a wrong clock, that somebody dropped by hand.
    table_id = stage.table()
    stage.rollup("hourly")
    stage.run("SELECT lakets.create_rollup_view('hourly', %s)", SUMS)
    ensure = "SELECT lakets._ensure_partitions(%s, p_range_start => %s, p_range_end => %s)"
    stage.run(ensure, table_id, "2100-01-01", "2100-01-02")
    stage.run("DROP TABLE metrics_21000101_000000")
    stage.run(ensure, table_id, stage.at(5), stage.at(6))
    assert stage.column("SELECT range_start::date::text FROM lakets._chunk_metadata WHERE status = 'dropped'")

    stage.run("INSERT INTO metrics VALUES (95, '2024-01-05 05:00+00', 95)")

    assert stage.column("SELECT total FROM _rollup_rt_hourly ORDER BY bucket") == [1, 2, 3, 4, 95]


def test_view_that_reads_a_rollup_computes_buckets_of_which_source_rows_are_dropped(stage: Stage) -> None:
    stage.table(days=range(1, 8))
    stage.rollup("daily", every="1 day")
    query = (
        "SELECT lakets.time_bucket('14 days', bucket, '2024-01-01+00'::timestamptz) AS bucket,"
        " sum(total) AS total FROM _rollup_daily GROUP BY 1"
    )
    stage.run("DELETE FROM _rollup_daily")
    stage.rollup("fortnightly", every="14 days", reads="daily", query=query)
    stage.run("SELECT lakets.create_rollup_view('fortnightly', %s)", query)
    stage.run("SELECT lakets.invalidate_rollup_range('daily', '2024-01-01', '2024-01-08')")
    stage.refresh("daily")

    drop_days(stage, 3)

    assert stage.column("SELECT total FROM _rollup_rt_fortnightly") == [28]


@pytest.mark.parametrize("keyed", [True, False], ids=["key", "no key"])
def test_view_looks_up_its_settled_buckets_once_and_not_for_each_row(stage: Stage, *, keyed: bool) -> None:
    stage.table(keyed=keyed)
    stage.rollup("hourly")
    stage.run("SELECT lakets.create_rollup_view('hourly', %s)", SUMS)
    stage.run(
        "INSERT INTO metrics SELECT 1000 + n, timestamptz '2024-01-05 00:00+00' + n * interval '1 s', 1"
        " FROM generate_series(1, 1000) AS n"
    )
    stage.run("SET track_functions = 'pl'; SELECT pg_stat_reset()")

    assert stage.value("SELECT sum(total) FROM _rollup_rt_hourly") == 1010
    calls = stage.run(
        "SELECT funcname, calls FROM pg_stat_xact_user_functions"
        " WHERE funcname IN ('_settled_labels', '_live_from') ORDER BY 1"
    )
    assert calls == [("_live_from", 3), ("_settled_labels", 2)]


def test_creation_warns_of_buckets_that_lack_dropped_rows(stage: Stage) -> None:
    stage.table(days=range(1, 8))
    drop_days(stage, 3)
    warned: list[str] = []
    stage.conn.add_notice_handler(lambda note: warned.append(f"{note.severity}: {note.message_primary}"))
    stage.run("SET client_min_messages = warning; SET timezone = 'Asia/Tokyo'")

    stage.rollup("daily", every="1 day")
    assert warned == []
    stage.rollup("weekly", every="7 days")

    assert warned == [
        "WARNING: Buckets of RollUp weekly (the first is 2023-12-30 00:00:00+00,"
        " the last 2023-12-30 00:00:00+00) lack rows of the source that were dropped before."
    ]
