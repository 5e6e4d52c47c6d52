"""RollUps: created, refreshed, dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.rollups.scene import SUMS, drop_days

if TYPE_CHECKING:
    from tests.stage import Raises, Stage

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


LATEST, EARLIEST = "294276-12-31 23:59:59.999999+00", "4714-11-24 00:00:00+00 BC"
LOCAL_DAY = "lakets.time_bucket('1 day', at AT TIME ZONE 'America/New_York')"


@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "not tracked"])
@pytest.mark.parametrize(
    ("moment", "bucket", "every"),
    [
        (LATEST, "lakets.time_bucket('1 hour', at)", "1 hour"),
        (LATEST, "lakets.time_bucket('1 month', at)", "1 month"),
        (LATEST, LOCAL_DAY, "1 day"),
        (EARLIEST, "lakets.time_bucket('1 hour', at)", "1 hour"),
        (EARLIEST, "date_trunc('day', at)", "1 day"),
    ],
)
def test_rows_at_the_ends_of_time_do_not_stop_a_refresh(
    stage: Stage, moment: str, bucket: str, every: str, *, tracked: bool
) -> None:
    stage.table()
    query = f"SELECT {bucket} AS bucket, count(*) AS n FROM public.metrics GROUP BY 1"
    stage.rollup("far", query=query, every=every)
    stage.run("SELECT lakets.create_rollup_view('far', %s)", query)
    if not tracked:
        stage.run("SELECT lakets.disable_rollup_invalidation('far')")

    for change in (
        f"INSERT INTO metrics VALUES (9, '{moment}', 9), (9, '2024-01-02', 9), (9, now(), 9)",
        "UPDATE metrics SET id = id + 10 WHERE id = 9",
    ):
        stage.run(change)
        assert stage.refresh("far")
        assert stage.refresh("far")
    assert tracked is False or stage.difference("far") == []
    assert stage.value("SELECT count(*) FROM _rollup_rt_far WHERE n > 0") > 0
    assert stage.value("SELECT lakets.invalidate_rollup_range('far', '2024-01-01', '2024-01-03')") > 0
    stage.run("DELETE FROM metrics WHERE id = 19")
    if tracked:
        assert stage.refresh("far")
        assert stage.difference("far") == []


def test_a_row_whose_bucket_has_no_timestamp_is_named(stage: Stage, raises: Raises) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.rollup("monthly", reads="hourly", every="1 month")
    stage.run(f"SET timezone = 'UTC'; INSERT INTO metrics VALUES (9, '{EARLIEST}', 9)")
    stage.refresh("hourly")

    with raises(
        "P0001", match=r"RollUp monthly fails .* 4714-11-24 00:00:00\+00 BC of public._rollup_hourly"
    ):
        stage.refresh("monthly")

    stage.run("DELETE FROM metrics WHERE id = 9")
    assert stage.cascade() == {"hourly": True, "monthly": True}
    assert stage.difference("monthly") == []


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "SET DEFAULT"])
def test_refresh_leaves_rows_alone_that_point_at_its_buckets(
    layered: Stage, raises: Raises, action: str
) -> None:
    layered.run(
        "ALTER TABLE _rollup_hourly ADD UNIQUE (bucket); CREATE TABLE note (bucket timestamptz"
        f" CONSTRAINT noted REFERENCES _rollup_hourly (bucket) ON DELETE {action});"
        " INSERT INTO note SELECT bucket FROM _rollup_hourly"
    )
    before = layered.run("TABLE note")
    layered.run("UPDATE metrics SET value = 70")

    with raises("P0001", match="point at its table: noted on public.note"):
        layered.refresh("hourly")

    assert layered.run("TABLE note") == before
    layered.run(
        "ALTER TABLE note DROP CONSTRAINT noted, ADD CONSTRAINT noted"
        " FOREIGN KEY (bucket) REFERENCES _rollup_hourly (bucket) DEFERRABLE INITIALLY DEFERRED"
    )
    assert layered.refresh("hourly")
    assert layered.difference("hourly") == []
    assert layered.run("TABLE note") == before


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
    # Its snapshot contains transaction ids that this cluster has not reached.
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
@pytest.mark.parametrize(
    "by_hand",
    [None, "DROP TABLE {}", "ALTER TABLE metrics DETACH PARTITION {}"],
    ids=["job", "drop", "detach"],
)
def test_bucket_with_a_dropped_chunk_keeps_its_value(
    layered: Stage, by_hand: str | None, change: str
) -> None:
    if by_hand is None:
        drop_days(layered, 3)
    else:
        for day in (1, 2, 3):
            layered.run(by_hand.format(layered.chunk(day)))
    layered.run(change)

    layered.cascade()

    totals = layered.totals("hourly")
    assert {bucket: totals.get(bucket) for bucket in ("1 12", "2 12", "3 12")} == {
        "1 12": 1,
        "2 12": 2,
        "3 12": 3,
    }


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE metrics SET value = 20 WHERE id = 2",
        "UPDATE lakets._rollup_registry SET absorbed = NULL; UPDATE metrics SET value = 20 WHERE id = 2",
        "SELECT lakets.drop_rollup(name) FROM unnest('{weekly,daily,hourly}'::text[]) AS name",
    ],
    ids=["corrected", "loaded anew", "created anew"],
)
def test_bucket_of_a_chunk_that_was_away_for_a_refresh_is_right_afterwards(
    layered: Stage, change: str
) -> None:
    layered.run(change)
    layered.run(f"ALTER TABLE metrics DETACH PARTITION {layered.chunk(2)}")
    if not layered.column("SELECT id FROM lakets._rollup_registry"):
        layered.rollup("hourly")
        layered.rollup("daily", reads="hourly", every="1 day")
        layered.rollup("weekly", reads="daily", every="7 days")
    layered.cascade()
    layered.cascade()
    layered.run(
        f"ALTER TABLE metrics ATTACH PARTITION {layered.chunk(2)}"
        " FOR VALUES FROM ('2024-01-02 00:00+00') TO ('2024-01-03 00:00+00')"
    )

    layered.cascade()

    for rollup in ("hourly", "daily", "weekly"):
        assert layered.difference(rollup) == []
    assert layered.totals("hourly")["2 12"] == (2 if "drop_rollup" in change else 20)
    assert layered.column("SELECT rollup_id FROM lakets._rollup_invalidation_log") == []


def test_buckets_of_a_chunk_that_is_gone_are_not_looked_at_forever(layered: Stage) -> None:
    layered.run("UPDATE metrics SET value = 20 WHERE id = 2")
    layered.run(f"DROP TABLE {layered.chunk(2)}")
    layered.cascade()
    layered.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")

    layered.cascade()

    assert layered.column("SELECT rollup_id FROM lakets._rollup_invalidation_log") == []
    assert layered.totals("hourly")["2 12"] == 2


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


def test_rollup_may_have_the_name_of_the_view_of_another(stage: Stage, raises: Raises) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.rollup("rt_hourly")
    with raises("P0001", match="would be public._rollup_rt_hourly, but a relation with that name exists"):
        stage.run("SELECT lakets.create_rollup_view('hourly', 'SELECT at AS bucket FROM metrics')")

    stage.run("SELECT lakets.drop_rollup('hourly')")

    assert stage.column("SELECT name FROM lakets.show_rollups()") == ["rt_hourly"]
    assert stage.difference("rt_hourly") == []


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
