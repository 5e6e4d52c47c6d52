"""RollUps as their users see them: made, refreshed, layered, failing, dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import Raises, Stage

SUMS = (
    "SELECT lakets.time_bucket('1 hour', at) AS bucket, sum(value)::bigint AS total, count(*)::bigint AS n"
    " FROM public.metrics GROUP BY 1"
)


@pytest.fixture
def layered(stage: Stage) -> Stage:
    """Make hourly, daily and weekly RollUps, each on the one before."""
    stage.once(make_layers)
    return stage


def make_layers(stage: Stage) -> None:
    stage.table(days=range(1, 15))
    stage.rollup("hourly")
    stage.rollup("daily", reads="hourly", every="1 day")
    stage.rollup("weekly", reads="daily", every="7 days")


@pytest.fixture
def warnings(stage: Stage) -> list[str]:
    said: list[str] = []
    stage.conn.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    stage.run("SET client_min_messages = warning")
    return said


# Refresh


def test_new_rollup_holds_what_the_table_holds(stage: Stage) -> None:
    stage.table()

    stage.rollup("hourly")

    assert stage.totals("hourly") == {"1 12": 1, "2 12": 2, "3 12": 3, "4 12": 4}


def test_refresh_takes_in_rows_of_every_chunk(layered: Stage) -> None:
    layered.run("INSERT INTO metrics SELECT 100 + n, at, 100 FROM metrics, generate_series(1, 3) AS n")
    layered.run("UPDATE metrics SET at = at + interval '36 hours' WHERE id % 3 = 0")
    layered.run("DELETE FROM metrics WHERE id IN (1, 2)")

    layered.cascade()

    assert [layered.difference(name) for name in ("hourly", "daily", "weekly")] == [[], [], []]


def test_refresh_with_nothing_to_do_writes_no_row(layered: Stage) -> None:
    before = layered.run("SELECT ctid, xmin, bucket FROM _rollup_hourly ORDER BY bucket")

    assert layered.refresh("hourly")
    assert layered.run("SELECT ctid, xmin, bucket FROM _rollup_hourly ORDER BY bucket") == before


def test_refresh_rewrites_only_the_buckets_that_changed(layered: Stage) -> None:
    query = "SELECT to_char(bucket AT TIME ZONE 'UTC', 'FMDD FMHH24'), xmin::text FROM _rollup_hourly"
    before = dict(layered.run(query))
    layered.run("UPDATE metrics SET value = 70 WHERE id = 7")

    layered.refresh("hourly")

    after = dict(layered.run(query))
    assert {bucket for bucket, xmin in after.items() if before.get(bucket) != xmin} == {"7 12"}


def test_truncate_empties_the_rollups(layered: Stage) -> None:
    layered.run("TRUNCATE metrics")

    layered.cascade()

    assert [layered.totals(name) for name in ("hourly", "daily", "weekly")] == [{}, {}, {}]


def test_many_scattered_changes_are_all_taken_in(stage: Stage) -> None:
    # More than the windows that a refresh works in: neighbours are joined.
    stage.table(rows=False)
    stage.run(
        "INSERT INTO metrics SELECT n, '2024-01-01'::timestamptz + n * interval '1 minute', n"
        " FROM generate_series(0, 5000) AS n"
    )
    stage.rollup("minutes", every="1 minute")
    stage.run("UPDATE metrics SET value = -value WHERE id % 31 = 0")

    stage.refresh("minutes")

    assert stage.difference("minutes") == []


@pytest.mark.parametrize("count", [1, 63, 64, 65, 300])
def test_neighbours_are_joined_over_the_narrowest_gaps(stage: Stage, count: int) -> None:
    windows = (
        "SELECT range_agg(tstzrange(s, s + interval '1 hour')) FROM (SELECT '2024-01-01'::timestamptz"
        " + interval '1 hour' * (n * n + n) AS s FROM generate_series(1, %s) AS n) AS starts"
    )

    joined, is_whole, widest, narrowest = stage.run(
        f"WITH w (w) AS ({windows}), j AS (SELECT w.w, lakets._join_neighbours(w.w) AS j FROM w),"
        " gaps AS (SELECT j.w, upper(g) - lower(g) AS gap, g <@ j.j AS is_closed FROM j,"
        " unnest(tstzmultirange(range_merge(j.w)) - j.w) AS g)"
        " SELECT (SELECT count(*) FROM j, unnest(j.j)), (SELECT j.w <@ j.j FROM j),"
        " (SELECT max(gap) FROM gaps WHERE is_closed), (SELECT min(gap) FROM gaps WHERE NOT is_closed)",
        count,
    )[0]

    assert (joined, is_whole) == (min(count, 64), True)
    assert widest is None or widest < narrowest


def test_refresh_lag_puts_a_refresh_off_unless_forced(stage: Stage) -> None:
    stage.table()
    stage.rollup("hourly", lag="1 day")
    first = stage.value("SELECT lakets.refresh_rollup('hourly')")
    stage.run("UPDATE metrics SET value = 100")

    answers = [first, stage.value("SELECT lakets.refresh_rollup('hourly')")]
    before = stage.totals("hourly")
    answers.append(stage.refresh("hourly"))

    assert answers == [True, False, True]
    assert set(before.values()) == {1, 2, 3, 4}
    assert set(stage.totals("hourly").values()) == {100}


def test_watermark_is_the_newest_bucket(layered: Stage) -> None:
    layered.run("INSERT INTO metrics VALUES (99, '2024-01-20 05:06+00', 1)")
    layered.refresh("hourly")

    assert layered.value("SELECT lakets._rollup_watermark('hourly') = '2024-01-20 05:00+00'")


def test_watermark_of_an_empty_rollup_is_null(stage: Stage) -> None:
    stage.table(rows=False)
    stage.rollup("hourly")

    assert stage.value("SELECT lakets._rollup_watermark('hourly')") is None


def test_restored_into_a_cluster_that_is_younger_it_is_loaded_anew(layered: Stage) -> None:
    # Its snapshot speaks of transactions that this cluster has yet to see.
    layered.run(
        "UPDATE lakets._rollup_registry SET absorbed = '9000000000:9000000000:' WHERE name = 'hourly'"
    )
    layered.run("UPDATE metrics SET value = 5")

    layered.cascade()

    assert layered.difference("hourly") == []


def test_changes_stamped_by_another_cluster_are_absorbed_once(layered: Stage) -> None:
    # As after a restore: stamps from the future are in no snapshot, and would be dirty at every
    # refresh.
    layered.run("UPDATE metrics SET value = 5")
    layered.run("UPDATE lakets._change_log SET xid = '8999999999'")
    layered.run("UPDATE lakets._rollup_registry SET absorbed = '9000000000:9000000000:'")

    layered.cascade()
    layered.cascade()

    dirty = "SELECT lakets._take_dirty_buckets(reg)::text FROM lakets._rollup_registry AS reg ORDER BY id"
    assert set(layered.column(dirty)) == {"{}"}
    assert layered.difference("hourly") == []


# Buckets whose source is dropped


def drop_days(stage: Stage, last: int) -> None:
    """Drop the chunks up to a day, as an administrator can."""
    stage.run("UPDATE lakets._chunk_metadata SET status = 'tiered' WHERE range_start > %s", stage.at(last))
    stage.run("SELECT lakets.drop_chunks('metrics', '1 day')")
    stage.run("UPDATE lakets._chunk_metadata SET status = 'active' WHERE status = 'tiered'")


@pytest.mark.parametrize(
    "change",
    [
        "SELECT lakets.invalidate_rollup_range('hourly', '2023-12-01', '2024-02-01')",
        "INSERT INTO metrics VALUES (500, '2024-01-02 12:30+00', 500)",
        "TRUNCATE metrics",
        "UPDATE metrics SET at = '2024-01-02 12:00+00' WHERE id = 9",
        "UPDATE lakets._rollup_registry SET absorbed = NULL",
        "INSERT INTO lakets._rollup_invalidation_log (rollup_id, bucket_start)"
        " SELECT id, t::timestamptz"
        " FROM lakets._rollup_registry, unnest('{-infinity,2024-01-02 12:00+00}'::text[]) t",
    ],
    ids=["invalidated", "late row", "truncate", "moved in", "loaded anew", "marked"],
)
def test_bucket_with_a_dropped_chunk_keeps_its_value(layered: Stage, change: str) -> None:
    drop_days(layered, 3)
    layered.run(change)

    layered.cascade()

    totals = layered.totals("hourly")
    assert {bucket: totals.get(bucket) for bucket in ("1 12", "2 12", "3 12")} == {
        "1 12": 1,
        "2 12": 2,
        "3 12": 3,
    }


def test_buckets_that_are_wholly_resident_go_on_changing_after_a_drop(layered: Stage) -> None:
    drop_days(layered, 3)
    layered.run("UPDATE metrics SET value = value * 10")

    layered.cascade()

    assert layered.totals("hourly") == {f"{day} 12": day * (10 if day > 3 else 1) for day in range(1, 15)}
    assert layered.difference("daily") == []
    assert layered.difference("weekly") == []


def test_bucket_of_which_one_chunk_is_dropped_keeps_its_value_as_a_whole(stage: Stage) -> None:
    stage.table(days=range(1, 15))
    stage.rollup("weekly", every="7 days")
    before = stage.totals("weekly")
    drop_days(stage, 1)
    stage.run("UPDATE metrics SET value = value * 10")

    stage.refresh("weekly")

    first, second, third = before
    assert stage.totals("weekly") == {
        first: before[first],
        second: before[second] * 10,
        third: before[third] * 10,
    }


# RollUps on RollUps


def test_change_climbs_through_three_levels_in_one_cascade(layered: Stage) -> None:
    layered.run("UPDATE metrics SET value = 1000 WHERE id = 5")

    done = layered.cascade("daily")

    assert done == {"hourly": True, "daily": True, "weekly": True}
    assert [layered.difference(name) for name in ("hourly", "daily", "weekly")] == [[], [], []]


def test_cascade_of_one_rollup_leaves_others_alone(layered: Stage) -> None:
    layered.rollup("aside")

    assert layered.cascade("weekly") == {"hourly": True, "daily": True, "weekly": True}


def test_diamond_is_right_after_one_cascade(layered: Stage) -> None:
    layered.rollup(
        "busiest",
        every="1 day",
        query="SELECT lakets.time_bucket('1 day', bucket) AS bucket, max(total) AS top"
        " FROM _rollup_hourly GROUP BY 1",
    )
    layered.rollup(
        "both",
        every="1 day",
        query="SELECT d.bucket, d.total, b.top FROM _rollup_daily d JOIN _rollup_busiest b USING (bucket)",
    )
    layered.run("INSERT INTO metrics VALUES (99, '2024-01-03 05:00+00', 50), (99, '2024-01-19 05:00+00', 50)")
    layered.run("DELETE FROM metrics WHERE id = 4")

    layered.cascade()

    assert layered.difference("both") == []
    assert layered.column("SELECT refresh_order FROM lakets.show_rollup_dag() ORDER BY rollup_name") == [
        3,
        2,
        2,
        1,
        3,
    ]


def test_rollup_of_a_table_and_a_rollup_follows_both(layered: Stage) -> None:
    layered.rollup(
        "share",
        every="1 hour",
        query="SELECT lakets.time_bucket('1 hour', m.at) AS bucket, m.id, sum(value) AS v, max(h.total) AS t"
        " FROM metrics m JOIN _rollup_hourly h"
        " ON h.bucket = lakets.time_bucket('1 hour', m.at) GROUP BY 1, 2",
    )
    layered.run("INSERT INTO metrics VALUES (99, '2024-01-03 12:00+00', 50)")

    layered.cascade()

    assert layered.difference("share") == []
    assert layered.run(
        "SELECT source_table, depends_on_names FROM lakets.show_rollups()"
        " JOIN lakets.show_rollup_dag() ON rollup_name = name WHERE name = 'share'"
    ) == [("public.metrics", ["hourly"])]


def test_invalidating_the_lowest_climbs(layered: Stage) -> None:
    layered.run("UPDATE _rollup_hourly SET total = -1")
    layered.run("SELECT lakets.invalidate_rollup_range('hourly', '2024-01-01', '2024-01-15')")

    layered.cascade()

    assert [layered.difference(name) for name in ("hourly", "daily", "weekly")] == [[], [], []]


# Failure


@pytest.fixture
def broken(layered: Stage) -> Stage:
    """Let daily fail, and make hourly's sibling and something to do."""
    layered.once(break_daily)
    return layered


def break_daily(stage: Stage) -> None:
    stage.rollup("aside")
    stage.run("ALTER TABLE _rollup_daily ADD CONSTRAINT small CHECK (total < 100)")
    stage.run("UPDATE metrics SET value = 100 WHERE id = 5")


def test_failing_rollup_takes_down_only_what_depends_on_it(broken: Stage) -> None:
    done = broken.cascade()

    assert done == {"aside": True, "hourly": True, "daily": False, "weekly": False}
    assert (broken.difference("hourly"), broken.difference("aside")) == ([], [])


def test_failing_rollup_and_what_is_skipped_for_it_are_told(broken: Stage, warnings: list[str]) -> None:
    broken.cascade()

    assert len(warnings) == 2
    assert warnings[0].startswith("RollUp daily failed: ")
    assert "small" in warnings[0]
    assert warnings[1] == "RollUp weekly is skipped: it depends on one that failed."


def test_failed_rollup_keeps_its_rows_and_makes_up_for_it_later(broken: Stage) -> None:
    before = broken.totals("daily")
    broken.cascade()
    after = broken.totals("daily")
    broken.run("ALTER TABLE _rollup_daily DROP CONSTRAINT small")

    broken.cascade()

    assert after == before
    assert [broken.difference(name) for name in ("daily", "weekly")] == [[], []]


def test_refresh_of_one_failing_rollup_raises(broken: Stage, raises: Raises) -> None:
    broken.refresh("hourly")

    with raises("23514"):
        broken.refresh("daily")


def test_circle_is_refused_and_named(layered: Stage, raises: Raises) -> None:
    layered.run(
        "UPDATE lakets._rollup_registry AS d SET depends_on = ARRAY[w.id]"
        " FROM lakets._rollup_registry AS w WHERE w.name = 'weekly' AND d.name = 'daily'"
    )

    with raises("P0001", match="daily, weekly"):
        layered.cascade()


# Marked by hand


@pytest.mark.parametrize(
    ("first", "last", "count"),
    [
        ("2024-01-05 00:00+00", "2024-01-05 03:00+00", 3),
        ("2024-01-05 00:30+00", "2024-01-05 03:30+00", 4),
        ("2024-01-05 00:30+00", "2024-01-05 00:31+00", 1),
        ("2024-01-03 22:00+00", "2024-01-04 02:00+00", 2),
        ("2024-01-01 00:00+00", "2024-01-03 00:00+00", 0),
    ],
    ids=["whole buckets", "parts of buckets", "one bucket", "past a drop", "all dropped"],
)
def test_invalidating_marks_the_buckets_of_a_range(layered: Stage, first: str, last: str, count: int) -> None:
    drop_days(layered, 3)

    assert layered.value("SELECT lakets.invalidate_rollup_range('hourly', %s, %s)", first, last) == count
    assert layered.value("SELECT count(*) FROM lakets._rollup_invalidation_log") == count


MARKS = "SELECT array_agg(bucket_start ORDER BY bucket_start) FROM lakets._rollup_invalidation_log"


@pytest.mark.parametrize("name", ["hourly", "daily", "weekly"])
def test_a_range_without_end_marks_what_there_is(layered: Stage, name: str) -> None:
    everything = "SELECT lakets.invalidate_rollup_range(%s, '1900-01-01', '2100-01-01')"

    count = layered.value(everything, name)

    assert count == {"hourly": 14 * 24, "daily": 14, "weekly": 3}[name]
    assert layered.value("SELECT count(*) FROM lakets._rollup_invalidation_log") == count


def test_the_same_range_again_marks_nothing_more(layered: Stage) -> None:
    call = "SELECT lakets.invalidate_rollup_range('hourly', %s, %s)"
    first = layered.value(call, "2024-01-05", "2024-01-07")
    marks = layered.value(MARKS)

    again = layered.value(call, "2024-01-05", "2024-01-07")
    part = layered.value(call, "2024-01-06", "2024-01-06 12:00")

    assert (first, again, part) == (48, 48, 12)
    assert layered.value(MARKS) == marks


def test_a_range_beyond_all_chunks_reaches_rows_outside_them(stage: Stage) -> None:
    stage.table(days=[1])
    stage.rollup("hourly")
    stage.run("SELECT lakets.disable_rollup_invalidation('hourly')")
    stage.run("INSERT INTO metrics VALUES (7, '1999-05-05 05:05+00', 7)")
    stage.run("SELECT lakets.invalidate_rollup_range('hourly', '1900-01-01', '2000-01-01')")

    stage.refresh("hourly")

    assert stage.difference("hourly") == []


def test_buckets_whose_rows_are_gone_from_an_empty_chunk_are_marked(stage: Stage) -> None:
    stage.table(days=range(1, 4))
    stage.rollup("hourly")
    stage.run("SELECT lakets.disable_rollup_invalidation('hourly'); TRUNCATE metrics")

    stage.run("SELECT lakets.invalidate_rollup_range('hourly', '1900-01-01', '2100-01-01')")
    stage.refresh("hourly")

    assert stage.totals("hourly") == {}


def test_without_tracking_only_what_is_new_is_taken_in(layered: Stage) -> None:
    layered.run("SELECT lakets.disable_rollup_invalidation('hourly')")
    layered.run("INSERT INTO metrics VALUES (99, '2024-01-03 05:00+00', 50), (99, '2024-01-20 05:00+00', 60)")
    layered.refresh("hourly")
    without = layered.totals("hourly")
    layered.run("SELECT lakets.enable_rollup_invalidation('hourly')")

    layered.refresh("hourly")

    assert "3 5" not in without
    assert without["20 5"] == 60
    assert layered.difference("hourly") == []


# The view


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


# Dropped


def test_drop_takes_table_view_shadow_and_marks_along(stage: Stage) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.run("SELECT lakets.create_rollup_view('hourly', %s)", SUMS)
    stage.run("SELECT lakets.enable_sync('hourly')")
    stage.run("SELECT lakets.invalidate_rollup_range('hourly', '2024-01-01', '2024-01-02')")

    stage.run("SELECT lakets.drop_rollup('hourly')")

    assert stage.column("SELECT relname::text FROM pg_class WHERE relname LIKE '%%rollup%%hourly%%'") == []
    assert (
        stage.column("SELECT proname::text FROM pg_proc WHERE proname LIKE '%%track_rollup%%_insert'") == []
    )
    assert stage.value("SELECT count(*) FROM lakets._rollup_invalidation_log") == 0
    stage.rollup("hourly")
    assert stage.difference("hourly") == []


def test_rollup_that_others_read_is_dropped_last(layered: Stage, raises: Raises) -> None:
    with raises("P0001", match="daily"):
        layered.run("SELECT lakets.drop_rollup('hourly')")

    for name in ("weekly", "daily", "hourly"):
        layered.run("SELECT lakets.drop_rollup(%s)", name)

    assert layered.run("SELECT * FROM lakets.show_rollups()") == []


def test_shadow_of_a_rollup_follows_its_refreshes(layered: Stage) -> None:
    layered.run("SELECT lakets.enable_sync('hourly')")
    layered.run("UPDATE metrics SET at = at + interval '5 hours', value = 3 WHERE id > 3")

    layered.cascade()

    assert layered.run("TABLE lakets_cdf._shadow_rollup_hourly ORDER BY 1") == layered.run(
        "TABLE _rollup_hourly ORDER BY 1"
    )
