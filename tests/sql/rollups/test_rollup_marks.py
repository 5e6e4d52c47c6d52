"""Buckets that are marked by hand, and changes that were not tracked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.rollups.scene import drop_days

if TYPE_CHECKING:
    from tests.stage import Stage


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


@pytest.mark.parametrize("since", ["2024-01-01", "1900-01-01"], ids=["few buckets", "many buckets"])
def test_buckets_of_a_chunk_that_is_away_are_marked_for_its_return(stage: Stage, since: str) -> None:
    stage.table(days=range(1, 5))
    stage.rollup("hourly")
    stage.run("SELECT lakets.disable_rollup_invalidation('hourly'); UPDATE metrics SET value = 77")
    stage.run(f"ALTER TABLE metrics DETACH PARTITION {stage.chunk(1)}")

    stage.run("SELECT lakets.invalidate_rollup_range('hourly', %s, '2024-02-01')", since)
    stage.refresh("hourly")
    stage.run(
        f"ALTER TABLE metrics ATTACH PARTITION {stage.chunk(1)}"
        " FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2024-01-02 00:00+00')"
    )
    stage.refresh("hourly")

    assert stage.totals("hourly")["1 12"] == 77
    assert stage.difference("hourly") == []


def test_a_range_over_all_of_time_is_marked(stage: Stage) -> None:
    stage.table(days=[1])
    stage.rollup("hourly")

    count = stage.value("SELECT lakets.invalidate_rollup_range('hourly', '4713-01-01 BC', '294276-01-01')")

    assert count == 24


def test_buckets_without_a_source_are_marked_in_a_long_range_too(layered: Stage) -> None:
    drop_days(layered, 3)
    layered.run(
        "INSERT INTO _rollup_hourly (bucket, total, n)"
        " VALUES ('1905-01-01 00:00+00', 1, 1), ('2040-01-01 00:00+00', 1, 1)"
    )

    count = layered.value("SELECT lakets.invalidate_rollup_range('hourly', '1900-01-01', '2100-01-01')")
    layered.refresh("hourly")

    assert count == 11 * 24 + 2
    assert list(layered.totals("hourly")) == [f"{day} 12" for day in range(1, 15)]


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


@pytest.mark.parametrize("far", ["2999-01-01", "290000-01-01"])
def test_a_row_in_the_future_does_not_make_new_rows_old_ones(stage: Stage, far: str) -> None:
    query = "SELECT lakets.time_bucket('1 hour', at) AS bucket, sum(value) AS total FROM metrics GROUP BY 1"
    stage.table(days=range(1, 4))
    stage.rollup("hourly", query=query)
    stage.run("SELECT lakets.create_rollup_view('hourly', %s)", query)
    stage.run("SELECT lakets.disable_rollup_invalidation('hourly')")
    stage.run("INSERT INTO metrics VALUES (7, %s, 7)", far)
    stage.refresh("hourly")

    stage.run("INSERT INTO metrics VALUES (8, '2024-01-20 05:00+00', 60)")

    shown = "SELECT bucket::text, total FROM {} AS shown ORDER BY 1"
    assert stage.run(shown.format("_rollup_rt_hourly")) == stage.run(shown.format(f"({query})"))
    stage.refresh("hourly")
    assert stage.difference("hourly") == []
