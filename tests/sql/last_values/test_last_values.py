"""The last value cache: what it holds, whatever is written, renamed or dropped."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sql.last_values.scene import ENABLE, NOON, cached, write

if TYPE_CHECKING:
    from tests.sandbox import Sandbox

# What is in it


def test_the_cache_is_a_table_with_the_keys_as_its_primary_key(db: Sandbox) -> None:
    db.chronotable("ts timestamptz, site text, device int, value float8, note jsonb")
    db.run("SELECT lakets.enable_lvc('metrics', '{device,site}', '{note,value}')")

    assert db.run(
        "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
        " WHERE attrelid = '_lvc_metrics'::regclass AND attnum > 0 ORDER BY attnum"
    ) == [
        ("device", "integer", True),
        ("site", "text", True),
        ("note", "jsonb", False),
        ("value", "double precision", False),
        ("last_updated", "timestamp with time zone", True),
    ]
    assert db.value(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = '_lvc_metrics'::regclass AND contype = 'p'"
    ) == ("PRIMARY KEY (device, site)")
    assert db.run(
        "SELECT key_columns, value_columns, cache_table_name, enabled FROM lakets._lvc_registry"
    ) == [(["device", "site"], ["note", "value"], "_lvc_metrics", True)]


def test_rows_that_are_there_are_loaded(db: Sandbox) -> None:
    db.chronotable("ts timestamptz, device text, value float8")
    write(db, (0, "a", 1), (5, "a", 2), (3, "b", 3), (4, None, 9), (1, "c", None))

    db.run(ENABLE)

    assert cached(db) == {"a": 2, "b": 3, "c": None}


def test_the_newest_row_of_each_key_is_kept(metrics: Sandbox) -> None:
    write(metrics, (5, "a", 1), (0, "a", 2), (3, "b", 3))
    write(metrics, (4, "a", 4), (9, "b", 5))

    assert cached(metrics) == {"a": 1, "b": 5}


def test_last_updated_is_the_time_of_the_row(metrics: Sandbox) -> None:
    write(metrics, (5, "a", 1))
    write(metrics, (4, "a", 2))

    assert metrics.column("SELECT last_updated FROM _lvc_metrics") == [
        datetime(2026, 1, 1, 12, 5, tzinfo=timezone.utc)
    ]


@pytest.mark.parametrize("at_once", [True, False])
def test_of_equal_times_the_one_written_last_wins(metrics: Sandbox, at_once: bool) -> None:
    rows: list[tuple[int, str | None, float | None]] = [(0, "a", 1), (0, "a", 2), (0, "a", 3)]
    for batch in [rows] if at_once else [[row] for row in rows]:
        write(metrics, *batch)

    assert cached(metrics) == {"a": 3}


def test_a_null_value_is_the_newest_value(metrics: Sandbox) -> None:
    write(metrics, (0, "a", 1))
    write(metrics, (1, "a", None))

    assert cached(metrics) == {"a": None}


def test_a_row_without_key_or_time_is_written_and_not_cached(metrics: Sandbox) -> None:
    write(metrics, (0, None, 1), (0, "a", 2))
    metrics.run("INSERT INTO metrics VALUES (NULL, 'b', 1)")

    assert cached(metrics) == {"a": 2}
    assert metrics.value("SELECT count(*) FROM metrics") == 3


def test_a_row_at_infinity_is_not_cached(metrics: Sandbox) -> None:
    metrics.run("INSERT INTO metrics VALUES ('infinity', 'a', 1), ('-infinity', 'b', 1)")
    write(metrics, (0, "a", 2))
    metrics.run("SELECT lakets.disable_lvc('metrics')")

    metrics.run(ENABLE)

    assert cached(metrics) == {"a": 2}


def test_copy_is_cached(metrics: Sandbox) -> None:
    with metrics.conn.cursor() as cursor, cursor.copy("COPY metrics FROM STDIN") as copy:
        for minute in range(100):
            copy.write_row(
                (datetime(2026, 1, 1, 12, minute % 60, tzinfo=timezone.utc), f"d{minute % 3}", minute)
            )

    assert cached(metrics) == {"d0": 57.0, "d1": 58.0, "d2": 59.0}


def test_upsert_is_cached(db: Sandbox) -> None:
    db.run("SET LOCAL timezone = 'UTC'")
    db.chronotable("ts timestamptz, device text, value float8, PRIMARY KEY (device, ts)")
    db.run(ENABLE)
    for value in (1, 2):
        db.run(
            f"INSERT INTO metrics VALUES ({NOON}, 'a', {value})"
            " ON CONFLICT (device, ts) DO UPDATE SET value = excluded.value"
        )

    assert cached(db) == {"a": 2}


def test_a_corrected_newest_row_is_followed_and_an_older_one_is_not(metrics: Sandbox) -> None:
    write(metrics, (0, "a", 1), (5, "a", 2))

    metrics.run("UPDATE metrics SET value = value + 10")

    assert cached(metrics) == {"a": 12}


def test_a_row_moved_to_a_later_chunk_is_followed(metrics: Sandbox) -> None:
    write(metrics, (0, "a", 1), (5, "b", 2))

    metrics.run("UPDATE metrics SET ts = ts + interval '3 days' WHERE device = 'a'")

    assert metrics.run("SELECT device, last_updated::date::text FROM _lvc_metrics ORDER BY 1") == [
        ("a", "2026-01-04"),
        ("b", "2026-01-01"),
    ]


@pytest.mark.parametrize(
    "removal", ["DELETE FROM metrics", "TRUNCATE metrics", "SELECT lakets.drop_chunks('metrics', '1 second')"]
)
def test_a_value_outlives_its_row(metrics: Sandbox, removal: str) -> None:
    write(metrics, (0, "a", 1))

    metrics.run(removal)

    assert cached(metrics) == {"a": 1}


writes = st.lists(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["a", "b", "é", None]), st.integers(0, 99)),
        min_size=1,
        max_size=6,
    ),
    max_size=5,
)


def test_any_writes_leave_the_newest_value_of_each_key(metrics: Sandbox) -> None:
    @given(batches=writes)
    @settings(max_examples=60, deadline=None)
    def agrees(batches: list[list[tuple[int, str | None, int]]]) -> None:
        expected: dict[str, tuple[int, float]] = {}
        with metrics.undone():
            for batch in batches:
                write(metrics, *batch)
                for minute, device, value in batch:
                    if device is not None and expected.get(device, (-1, 0))[0] <= minute:
                        expected[device] = (minute, value)

            assert cached(metrics) == {device: value for device, (_, value) in expected.items()}

    agrees()


@pytest.mark.parametrize(
    ("kind", "time"),
    [("timestamptz", NOON), ("timestamp", f"({NOON} AT TIME ZONE 'UTC')"), ("date", "'2026-01-01'::date")],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_times_without_a_zone_are_utc(db: Sandbox, kind: str, time: str, zone: str) -> None:
    db.run(f"SET LOCAL timezone = '{zone}'")
    db.chronotable(f"ts {kind}, device text, value float8")
    db.run(ENABLE)

    db.run(f"INSERT INTO metrics VALUES ({time}, 'a', 1)")

    assert db.value("SELECT last_updated FROM _lvc_metrics") == datetime(
        2026, 1, 1, 0 if kind == "date" else 12, tzinfo=timezone.utc
    )


@pytest.mark.parametrize("schema", ["public", 'Odd "schema".ü'])
@pytest.mark.parametrize("name", ["metrics", 'Odd "name".ü %s', "x" * 63, "größe" * 9])
def test_any_name_will_do(db: Sandbox, schema: str, name: str) -> None:
    quoted = [part.replace('"', '""') for part in (schema, name)]
    db.run(f'CREATE SCHEMA IF NOT EXISTS "{quoted[0]}"')
    db.run(f'CREATE TABLE "{quoted[0]}"."{quoted[1]}" ("T s" timestamptz, "found" text, "v%" int, "old" int)')
    db.run("SELECT lakets.create_chronotable(%s, 'T s', '1 day', %s)", name, schema)

    db.run("SELECT lakets.enable_lvc(%s, '{found}', '{v%%,old}', %s)", name, schema)
    db.run(f'INSERT INTO "{quoted[0]}"."{quoted[1]}" VALUES ({NOON}, \'a\', 1, 2)')

    assert db.run(
        "SELECT f, v, o FROM lakets.latest_values(%s, %s) AS t (f text, v int, o int, at timestamptz)",
        name,
        schema,
    ) == [("a", 1, 2)]
    db.run("SELECT lakets.disable_lvc(%s, %s)", name, schema)
    assert (
        db.value(
            "SELECT count(*) FROM pg_class WHERE relname LIKE '\\_lvc\\_%%' AND relkind = 'r'"
            " AND relnamespace <> 'lakets'::regnamespace"
        )
        == 0
    )


# How it is read


def test_latest_values_are_the_rows_newest_first(metrics: Sandbox) -> None:
    write(metrics, (5, "a", 1), (9, "b", 2), (7, "c", 3))

    assert metrics.run(
        "SELECT device, value, extract(minute FROM at)::int FROM lakets.latest_values('metrics')"
        " AS t (device text, value float8, at timestamptz)"
    ) == [("b", 2, 9), ("c", 3, 7), ("a", 1, 5)]


def test_stats_count_the_keys(metrics: Sandbox) -> None:
    write(metrics, (5, "a", 1), (9, "b", 2), (7, "b", 3))

    assert metrics.run("SELECT * FROM lakets.lvc_stats()") == [
        ("public.metrics", "_lvc_metrics", 2, "device", "value", True)
    ]


def test_stats_do_not_fail_where_a_cache_is_gone(metrics: Sandbox) -> None:
    metrics.run("DROP TABLE _lvc_metrics")

    assert metrics.run("SELECT cached_series, enabled FROM lakets.lvc_stats()") == [(None, False)]


# What is refused


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ("'nowhere', '{device}', '{value}'", "public.nowhere is not a ChronoTable"),
        ("'metrics', '{}', '{value}'", "needs a key column"),
        ("'metrics', NULL, '{value}'", "needs a key column"),
        ("'metrics', '{nothing}', '{value}'", "has no column nothing"),
        ("'metrics', '{device}', '{NULL}'", "has no column null"),
        ("'metrics', '{device}', '{ctid}'", "has no column ctid"),
        ("'metrics', '{device,device}', '{value}'", "Column device is named twice"),
        ("'metrics', '{device}', '{device}'", "Column device is named twice"),
        ("'metrics', '{device}', '{last_updated}'", "Column last_updated of public.metrics cannot be cached"),
        (
            "'metrics', '{raw}', '{value}'",
            "Column raw of public.metrics cannot be a key: its type json has no order",
        ),
    ],
)
def test_what_cannot_be_cached_is_refused(db: Sandbox, arguments: str, match: str) -> None:
    db.chronotable("ts timestamptz, device text, value float8, raw json, last_updated timestamptz")

    with db.refused("P0001", match):
        db.run(f"SELECT lakets.enable_lvc({arguments})")

    assert db.value("SELECT count(*) FROM lakets._lvc_registry") == 0


def test_a_second_cache_is_refused(metrics: Sandbox) -> None:
    with metrics.refused("P0001", "already enabled"):
        metrics.run(ENABLE)


def test_a_relation_of_the_caches_name_is_left_alone(db: Sandbox) -> None:
    db.chronotable("ts timestamptz, device text, value float8")
    db.run("CREATE VIEW _lvc_metrics AS SELECT 1 AS mine")

    with db.refused("P0001", "a relation with that name exists"):
        db.run(ENABLE)


@pytest.mark.parametrize("call", ["disable_lvc('metrics')", "latest_values('metrics') AS t (a int)"])
def test_a_table_without_a_cache_is_told(db: Sandbox, call: str) -> None:
    db.chronotable()

    with db.refused("P0001", "is not enabled"):
        db.run(f"SELECT * FROM lakets.{call}")
