"""Job 1: chunks where they are due, never overlapping or missing, after any history."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.grid import UTC, at, between, due, gaps

if TYPE_CHECKING:
    from tests.grid import Ranges
    from tests.sandbox import Sandbox


ENSURE = (
    "SELECT lakets._ensure_partitions(%s, p_range_start => %s::timestamptz, p_range_end => %s::timestamptz)"
)


def registered(db: Sandbox, table_id: int) -> Ranges:
    """Return the ranges of a table's chunks as its registry has them, in order."""
    return [
        (start, end)
        for start, end in db.run(
            "SELECT range_start, range_end FROM lakets._chunk_metadata WHERE chronotable_id = %s ORDER BY 1",
            table_id,
        )
    ]


def bounds(db: Sandbox, relation: str = "metrics") -> list[str]:
    """Return the bounds of a table's partitions as Postgres has them, in order."""
    return db.column(
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE inhparent = %s::regclass ORDER BY 1",
        relation,
    )


def assert_disjoint(ranges: Ranges) -> None:
    for before, after in pairwise(ranges):
        assert before[0] < before[1] <= after[0] < after[1]


@pytest.mark.parametrize("type_", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize(
    ("interval", "first", "count"),
    [
        ("1 month", at(2024, 1), 3),
        ("3 months", at(2024, 1), 1),
        ("1 year", at(2024, 1), 1),
        ("7 days", datetime(2024, 1, 13, tzinfo=UTC), 9),
        ("1 day", at(2024, 1, 15), 60),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_range_is_filled_with_the_cells_that_touch_it(
    db: Sandbox, interval: str, type_: str, first: datetime, count: int
) -> None:
    table_id = db.chronotable(f"ts {type_}", interval=interval)

    made = db.value(ENSURE, table_id, "2024-01-15+00", "2024-03-15+00")

    found = between(registered(db, table_id), at(2024, 1, 15), at(2024, 3, 15))
    assert (made, len(found)) == (count, count)
    assert found[0][0] == first
    assert_disjoint(found)
    assert gaps(found, at(2024, 1, 15), at(2024, 3, 15)) == []


def test_hours_and_seconds_are_intervals_too(db: Sandbox) -> None:
    table_id = db.chronotable(interval="90 minutes")

    db.value(ENSURE, table_id, "2024-01-01 00:00:30+00", "2024-01-01 02:00:00.5+00")

    assert between(registered(db, table_id), at(2024), at(2025)) == [
        (at(2024), at(2024) + timedelta(minutes=90)),
        (at(2024) + timedelta(minutes=90), at(2024, 1, 1, 3)),
    ]


def test_the_same_range_again_makes_nothing(db: Sandbox) -> None:
    table_id = db.chronotable()
    db.value(ENSURE, table_id, "2024-01-01+00", "2024-02-01+00")
    before = bounds(db)

    assert db.value(ENSURE, table_id, "2024-01-01+00", "2024-02-01+00") == 0
    assert bounds(db) == before


def test_without_a_range_chunks_reach_from_the_last_interval_to_the_next_three(db: Sandbox) -> None:
    table_id = db.chronotable(interval="1 month")

    starts = [start for start, _ in registered(db, table_id)]

    this_month = db.value("SELECT date_trunc('month', now(), 'UTC')")
    assert len(starts) == 5
    assert starts[1] == this_month


def test_one_end_of_a_range_may_be_left_out(db: Sandbox) -> None:
    table_id = db.chronotable(interval="1 year")

    db.value("SELECT lakets._ensure_partitions(%s, p_range_start => '2015-06-01+00')", table_id)

    assert registered(db, table_id)[0] == (at(2015), at(2016))
    assert gaps(registered(db, table_id), at(2015), datetime.now(UTC)) == []


def test_a_call_can_be_bounded_and_goes_on_where_it_stopped(db: Sandbox) -> None:
    table_id = db.chronotable()
    bounded = ENSURE[:-1] + ", p_max_chunks => 20)"

    made = [db.value(bounded, table_id, "2024-01-01+00", "2024-02-20+00") for _ in range(4)]

    assert made == [20, 20, 10, 0]
    assert gaps(between(registered(db, table_id), at(2024), at(2024, 2, 20)), at(2024), at(2024, 2, 20)) == []


@pytest.mark.parametrize("count", [0, -1])
def test_a_call_must_be_let_make_a_chunk(db: Sandbox, count: int) -> None:
    table_id = db.chronotable()

    with db.refused("P0001", match="p_max_chunks must be 1 or more"):
        db.value("SELECT lakets._ensure_partitions(%s, p_max_chunks => %s)", table_id, count)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize("style", ["ISO, MDY", "SQL, DMY", "German", "Postgres, MDY"])
@pytest.mark.parametrize("type_", ["timestamptz", "timestamp", "date"])
def test_the_session_has_no_say_in_where_chunks_lie(db: Sandbox, type_: str, style: str, zone: str) -> None:
    db.run("SELECT set_config('timezone', %s, true), set_config('datestyle', %s, true)", zone, style)
    db.run(f"CREATE TABLE metrics (ts {type_})")
    db.run("INSERT INTO metrics VALUES ('2024-03-10 12:00'), ('2024-11-03 12:00')")
    table_id = db.value("SELECT lakets.create_chronotable('metrics', 'ts', '1 day')")
    # Clocks in New York change on both days.
    db.value(ENSURE, table_id, at(2024, 3, 9), at(2024, 3, 12))
    db.value(ENSURE, table_id, at(2024, 11, 2), at(2024, 11, 5))

    db.run("SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'")
    found = between(registered(db, table_id), at(2024), at(2025))
    days = [
        at(2024, 3, 9),
        at(2024, 3, 10),
        at(2024, 3, 11),
        at(2024, 11, 2),
        at(2024, 11, 3),
        at(2024, 11, 4),
    ]
    assert found == [(day, day + timedelta(days=1)) for day in days]
    begins = {
        "timestamptz": "FROM ('2024-03-10 00:00:00+00')",
        "timestamp": "FROM ('2024-03-10 00:00:00')",
        "date": "FROM ('2024-03-10')",
    }
    assert sum(begins[type_] in bound for bound in bounds(db)) == 1
    assert db.value("SELECT count(*) FROM metrics_default") == 0


def test_chunk_names_tell_their_start_in_utc(db: Sandbox) -> None:
    db.run("SET LOCAL timezone = 'Asia/Kathmandu'")
    table_id = db.chronotable(interval="6 hours")

    db.value(ENSURE, table_id, at(2024, 1, 1, 6), at(2024, 1, 1, 12))

    assert "public.metrics_20240101_060000" in db.column(
        "SELECT chunk_name FROM lakets.show_chunks('metrics')"
    )


def test_an_interval_changed_back_and_forth_leaves_neither_gap_nor_overlap(db: Sandbox) -> None:
    table_id = db.chronotable(interval="7 days")
    start, end = at(2023, 12, 20), at(2024, 5, 1)
    db.value(ENSURE, table_id, at(2024, 1, 1), at(2024, 1, 20))
    for interval, upto in (
        ("1 month", at(2024, 2, 10)),
        ("1 day", at(2024, 3, 5)),
        ("7 days", end),
        ("1 year", end),
    ):
        db.run("SELECT lakets.set_chunk_interval('metrics', %s::interval)", interval)
        db.value(ENSURE, table_id, start, upto)

    found = between(registered(db, table_id), start, end)

    assert_disjoint(found)
    assert gaps(found, start, end) == []
    # The year's chunks are what was left of their years.
    assert found[0] == (at(2023, 12, 1), at(2023, 12, 30))


BAD_RANGES = {
    "backwards": ("'2024-02-01+00'", "'2024-01-01+00'", "P0001"),
    "endless": ("'2024-01-01+00'", "'infinity'", "P0001"),
    "beginningless": ("'-infinity'", "'2024-01-01+00'", "P0001"),
    "before the year 1": ("'0044-03-15+00 BC'", "'0044-03-16+00 BC'", "P0001"),
    "after the year 9998": ("'2024-01-01+00'", "'12024-01-01+00'", "P0001"),
    "too much": ("'1900-01-01+00'", "'2024-01-01+00'", "P0001"),
}


@pytest.mark.parametrize("case", BAD_RANGES)
def test_a_range_that_cannot_be_meant_is_refused(db: Sandbox, case: str) -> None:
    start, end, condition = BAD_RANGES[case]
    table_id = db.chronotable()

    with db.refused(condition, "range from"):
        db.value(f"SELECT lakets._ensure_partitions({table_id}, 1, 3, {start}, {end})")


@pytest.mark.parametrize("argument", ["p_past_count", "p_future_count"])
@pytest.mark.parametrize("count", [None, -1, 20_001, 2**31 - 1, -(2**31)])
def test_a_count_of_chunks_that_makes_no_sense_is_named(
    db: Sandbox, argument: str, count: int | None
) -> None:
    table_id = db.chronotable()

    with db.refused("P0001", f"{argument} must be from 0 to 20000, not"):
        db.value(f"SELECT lakets._ensure_partitions(%s, {argument} => %s)", table_id, count)


def test_an_unknown_table_is_told(db: Sandbox) -> None:
    with db.refused("P0001", "id 4711"):
        db.value("SELECT lakets._ensure_partitions(4711)")


def test_a_dropped_range_is_never_made_again(db: Sandbox) -> None:
    table_id = db.chronotable()
    db.value(ENSURE, table_id, at(2024), at(2024, 1, 10))
    db.run("SELECT lakets.drop_chunks('metrics', now() - '2024-01-05+00'::timestamptz)")
    db.run("INSERT INTO metrics (ts) VALUES ('2024-01-02 12:00+00')")

    made = db.value(ENSURE, table_id, at(2024), at(2024, 1, 12))

    assert made == 2
    assert db.value("SELECT count(*) FROM metrics_default") == 1
    assert db.value("SELECT min(range_start) FROM lakets.show_chunks('metrics')") == at(2024, 1, 5)


def test_a_dropped_range_bounds_the_cells_of_another_interval(db: Sandbox) -> None:
    table_id = db.chronotable()
    db.value(ENSURE, table_id, at(2024, 1, 10), at(2024, 1, 12))
    db.run("SELECT lakets.drop_chunks('metrics', '1 day')")
    db.run("SELECT lakets.set_chunk_interval('metrics', '1 month')")

    db.value(ENSURE, table_id, at(2024), at(2024, 2))

    standing = db.run(
        "SELECT range_start, range_end FROM lakets.show_chunks('metrics') WHERE range_start < '2025-01-01'"
    )
    assert standing == [(at(2024), at(2024, 1, 10)), (at(2024, 1, 12), at(2024, 2))]


@pytest.mark.parametrize(
    "clash",
    [
        'CREATE TABLE "metrics_20240101_000000" ()',
        'CREATE VIEW "metrics_20240101_000000" AS SELECT 1',
        'CREATE TYPE "metrics_20240101_000000" AS ENUM ()',
        'CREATE INDEX "metrics_20240101_000000" ON metrics (ts)',
    ],
    ids=["table", "view", "type", "index"],
)
def test_a_chunk_steps_aside_for_what_has_its_name(db: Sandbox, clash: str) -> None:
    table_id = db.chronotable()
    db.run(clash)

    db.value(ENSURE, table_id, at(2024), at(2024, 1, 3))

    db.run("INSERT INTO metrics (ts) VALUES ('2024-01-01 12:00+00')")
    chunk, partition = db.run(
        "SELECT chunk_name, relation_name FROM lakets._chunk_metadata WHERE range_start = '2024-01-01+00'"
    )[0]
    assert chunk == "public.metrics_20240101_000000"
    assert db.value(f'SELECT count(*) FROM "{partition}"') == 1
    assert db.value("SELECT size_bytes FROM lakets.show_chunks('metrics') WHERE chunk_name = %s", chunk) > 0


def test_chunks_that_start_in_one_second_are_told_apart(db: Sandbox) -> None:
    table_id = db.chronotable(interval="1 second")
    db.run(
        "CREATE TABLE older PARTITION OF metrics"
        " FOR VALUES FROM ('2024-01-01 00:00:00.3+00') TO ('2024-01-01 00:00:00.5+00')"
    )
    db.run(
        "INSERT INTO lakets._chunk_metadata"
        " (chronotable_id, chunk_name, relation_name, range_start, range_end)"
        " VALUES (%s, 'older', 'older', '2024-01-01 00:00:00.3+00', '2024-01-01 00:00:00.5+00')",
        table_id,
    )

    made = db.value(ENSURE, table_id, "2024-01-01 00:00:00+00", "2024-01-01 00:00:02+00")

    names = db.column("SELECT chunk_name FROM lakets._chunk_metadata WHERE range_end < '2024-12-31'")
    assert (made, len(set(names))) == (3, 4)


def test_chunks_have_the_keys_and_indexes_of_their_table(db: Sandbox) -> None:
    table_id = db.chronotable("id int, ts timestamptz, value int CHECK (value > 0), PRIMARY KEY (id, ts)")
    db.run("CREATE INDEX ON metrics (value)")

    db.value(ENSURE, table_id, at(2024), at(2024, 1, 2))

    assert db.value("SELECT count(*) FROM pg_index WHERE indrelid = 'metrics_20240101_000000'::regclass") == 2
    with db.refused("23505"):
        db.run("INSERT INTO metrics VALUES (1, '2024-01-01+00', 1), (1, '2024-01-01+00', 1)")


def test_show_chunks_can_be_limited_to_the_old_and_the_new(db: Sandbox) -> None:
    table_id = db.chronotable()
    db.value(ENSURE, table_id, at(2024), at(2024, 1, 11))
    older, newer = (db.value("SELECT now() - %s::timestamptz", at(2024, 1, day)) for day in (5, 3))

    shown = db.column(
        "SELECT range_start FROM lakets.show_chunks('metrics', p_older_than => %s, p_newer_than => %s)",
        older,
        newer,
    )

    assert shown == [at(2024, 1, 3), at(2024, 1, 4)]


def test_nothing_due_costs_little_with_five_thousand_chunks(db: Sandbox) -> None:
    table_id = db.chronotable(interval="1 hour")
    # What the job looks at is the registry: real partitions would only make this test slow.
    db.run(
        "INSERT INTO lakets._chunk_metadata (chronotable_id, chunk_name, range_start, range_end)"
        " SELECT %s, 'c' || n, at, at + interval '1 hour' FROM generate_series(1, 5000) AS n,"
        " LATERAL (SELECT '2024-01-01+00'::timestamptz + n * interval '1 hour' AS at) AS chunk",
        table_id,
    )
    db.run("INSERT INTO metrics (ts) SELECT '2024-01-02+00'::timestamptz FROM generate_series(1, 5000)")
    read = (
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
        " WHERE relid = 'lakets._chunk_metadata'::regclass"
    )
    before = db.value(read)

    assert db.value(ENSURE, table_id, at(2024, 1, 2), at(2024, 7, 1)) == 0

    # A few times over the registry, as its statistics say, not once for each row or cell.
    assert db.value(read) - before <= 4 * 5100


INTERVALS = ["1 hour", "5 hours", "1 day", "7 days", "1 month", "1 year"]


moments = st.integers(0, 60 * 24).map(lambda hours: at(2024, 1, 25) + timedelta(hours=hours))


batches = st.sampled_from([None, 1, 3])


steps = st.tuples(st.sampled_from(INTERVALS), moments, st.integers(1, 240), batches, st.booleans())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=1, max_size=5))
def test_any_history_of_intervals_ranges_rows_and_drops_leaves_what_the_model_says(
    db: Sandbox, history: list[tuple[str, datetime, int, int | None, bool]]
) -> None:
    with db.undone():
        table_id = db.chronotable(interval="1 day")
        model = registered(db, table_id)
        bounded = ENSURE[:-1] + ", p_max_chunks => %s)"
        rows = 0
        for interval, start, hours, bound, is_dropping in history:
            end = start + timedelta(hours=hours)
            if interval == "1 hour":
                end = min(end, start + timedelta(hours=30))
            if bound is None:  # else a chunk beside a row's own may no longer be due when its turn comes
                db.run("INSERT INTO metrics (ts) VALUES (%s)", start)
                rows += 1
            db.run("SELECT lakets.set_chunk_interval('metrics', %s::interval)", interval)
            chunks = due(model, interval, start, end, db.column("SELECT ts FROM metrics_default"))

            made = [db.value(bounded, table_id, start, end, bound)]
            while made[-1] == bound:
                made.append(db.value(bounded, table_id, start, end, bound))
            assert sum(made) == len(chunks)

            model = sorted(model + chunks)
            assert registered(db, table_id) == model
            assert_disjoint(model)
            assert gaps(between(model, start, end), start, end) == []
            assert db.value("SELECT count(*) FROM metrics") == rows
            if is_dropping:
                db.run("DELETE FROM metrics")
                rows = 0
                db.run("SELECT lakets.drop_chunks('metrics', now() - %s::timestamptz)", start)
