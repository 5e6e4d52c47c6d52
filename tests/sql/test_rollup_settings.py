"""Settings of the session that creates, refreshes or reads a RollUp change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import Raises, Stage

ODD = (
    "SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kolkata';"
    " SET extra_float_digits = -10; SET quote_all_identifiers = on; SET search_path = public, pg_temp;"
    " SET bytea_output = 'escape'; SET array_nulls = off"
)
PLAIN = (
    "SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET timezone = 'UTC';"
    " SET extra_float_digits = 1; SET quote_all_identifiers = off; RESET search_path;"
    " SET bytea_output = 'hex'; SET array_nulls = on"
)
QUERIES = {
    "literals": "SELECT lakets.time_bucket('1 day', at) AS bucket, sum(value) AS total FROM metrics"
    " WHERE day >= date '2024-03-02' AND at >= '2024-02-01 00:00+00' AND value < 0.1::float8 * 3 + 1000"
    " AND at < at - interval '-1 2:03:04' GROUP BY 1",
    "time zone": "SELECT date_trunc('day', at) AS bucket, count(*) AS n FROM metrics GROUP BY 1",
    "texts of times": "SELECT date_trunc('day', at) AS bucket,"
    " max(at::text || day || (at - '2024-01-01+00'::timestamptz))"
    " AS said, max('04/03/2024'::text::date) AS parsed FROM metrics GROUP BY 1",
    "bytes and arrays": "SELECT date_trunc('hour', at) AS bucket, max(int4send(value)::text) AS bytes,"
    " max(coalesce(('{NULL}'::text::text[])[1], 'none')) AS first, max(quote_ident(value::text)) AS name"
    " FROM metrics GROUP BY 1",
    "digits": "SELECT date_trunc('hour', at) AS bucket, max((value / 3.0::float8)::text) AS t"
    " FROM metrics GROUP BY 1",
}


@pytest.fixture
def days(stage: Stage) -> Stage:
    stage.once(make_days)
    return stage


def make_days(stage: Stage) -> None:
    stage.run("CREATE TABLE metrics (at timestamptz, day date, value integer)")
    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '7 days')")
    stage.run(
        "INSERT INTO metrics SELECT t, t::date, extract(day FROM t) FROM"
        " generate_series('2024-02-25 20:30+00'::timestamptz, '2024-03-12', '11 hours') AS t"
    )


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
@pytest.mark.parametrize(("creates", "refreshes"), [(ODD, PLAIN), (PLAIN, ODD)], ids=["created", "refreshed"])
def test_refresh_means_the_same_under_any_settings(
    days: Stage, query: str, creates: str, refreshes: str
) -> None:
    days.run("SET search_path = public")
    days.rollup("expected", every="1 day", query=query)
    days.run(creates)
    if creates == ODD:  # the same day as this session writes it
        query = query.replace("'2024-03-02'", "'02/03/2024'")
    days.rollup("q", every="1 day", query=query)
    days.run(PLAIN)
    days.run("UPDATE metrics SET value = value + 1")
    days.run("INSERT INTO metrics VALUES ('2024-03-05 23:10+00', '2024-03-05', 9)")
    days.refresh("expected")
    days.run(refreshes)

    days.refresh("q")

    days.run(PLAIN)
    assert days.run("TABLE _rollup_q EXCEPT TABLE _rollup_expected") == []
    assert (
        days.value("SELECT count(*) FROM _rollup_q")
        == days.value("SELECT count(*) FROM _rollup_expected")
        > 5
    )
    assert days.difference("q") == []


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_view_shows_the_same_under_any_settings(days: Stage, query: str) -> None:
    days.rollup("q", every="1 day", query=query)
    days.run("SELECT lakets.create_rollup_view('q', %s)", query)
    days.run("INSERT INTO metrics SELECT at + interval '30 days', day + 30, value FROM metrics")
    shown = "SELECT (extract(epoch FROM bucket), to_jsonb(r) - 'bucket')::text FROM {} AS r ORDER BY bucket"
    days.run("SET extra_float_digits = 1")
    expected = days.column(shown.format("_rollup_rt_q"))
    days.run(ODD)

    seen = days.column(shown.format("_rollup_rt_q"))

    days.run(PLAIN)
    days.refresh("q")
    assert seen == expected == days.column(shown.format("_rollup_q"))


ZONES = {
    "cast": "(said ->> 'at')::timestamptz",
    "time of day": "('10:00' || substr(said ->> 'at', 17))::timetz",
    "array": "(('{' || (said ->> 'at') || '}')::timestamptz[])[1]",
    "domain": "(said ->> 'at')::public.moment",
    "range": "lower(('[' || (said ->> 'at') || ',]')::tstzrange)",
    "record": "(SELECT r.at FROM jsonb_to_record(said) AS r (at timestamptz))",
}


@pytest.mark.parametrize("read", ZONES)
def test_names_of_zones_mean_the_same_under_any_settings(stage: Stage, read: str) -> None:
    query = f"SELECT date_trunc('day', at) AS bucket, max({ZONES[read]}) AS said FROM metrics GROUP BY 1"
    stage.table()
    stage.run("CREATE DOMAIN moment AS timestamptz")
    stage.run("ALTER TABLE metrics ADD COLUMN said jsonb")
    stage.run('UPDATE metrics SET said = \'{"at": "2024-01-01 10:00 IST"}\'')
    stage.rollup("q", every="1 day", query=query)
    stage.run("SELECT lakets.create_rollup_view('q', %s)", query)
    before = stage.column("SELECT said::text FROM _rollup_q")

    stage.run(
        "SET timezone_abbreviations = 'India'; UPDATE metrics SET value = 0; INSERT INTO metrics"
        " SELECT id, at + interval '30 days', value, said FROM metrics"
    )
    shown = stage.column("SELECT said::text FROM _rollup_rt_q")
    stage.refresh("q")

    assert set(shown) == set(before) == set(stage.column("SELECT said::text FROM _rollup_q"))


def test_a_refresh_sets_names_of_zones_only_where_it_reads_them(days: Stage) -> None:
    days.rollup("q", every="1 day", query=QUERIES["literals"])

    assert "timezone_abbreviations" not in str(
        days.value("SELECT proconfig FROM pg_proc WHERE proname = '_fill_q'")
    )


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE metrics RENAME TO counts",
        "CREATE SCHEMA other; ALTER TABLE metrics SET SCHEMA other",
        "ALTER SCHEMA public RENAME TO other; CREATE SCHEMA public;"
        " ALTER TABLE other._rollup_q SET SCHEMA public; ALTER VIEW other._rollup_rt_q SET SCHEMA public",
        "ALTER TABLE metrics RENAME value TO amount; ALTER TABLE metrics RENAME day TO date",
        "ALTER TABLE metrics RENAME at TO moment",
    ],
    ids=["table", "schema of the table", "schema", "columns", "time column"],
)
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_view_follows_when_a_name_in_its_query_changes(days: Stage, query: str, change: str) -> None:
    days.rollup("q", every="1 day", query=query)
    days.run("SELECT lakets.create_rollup_view('q', %s)", query)
    days.run("INSERT INTO metrics SELECT at + interval '30 days', day + 30, value FROM metrics")
    before = days.run("SELECT * FROM _rollup_rt_q ORDER BY bucket")
    assert len(before) > days.value("SELECT count(*) FROM _rollup_q")

    days.run(change)

    assert days.run("SELECT * FROM _rollup_rt_q ORDER BY bucket") == before


def test_view_that_fixes_its_settings_goes_with_its_rollup(days: Stage) -> None:
    days.rollup("q", every="1 day", query=QUERIES["time zone"])
    days.run("SELECT lakets.create_rollup_view('q', %s)", QUERIES["time zone"])
    days.run("SELECT lakets.create_rollup_view('q', %s)", QUERIES["time zone"])

    days.run("SELECT lakets.drop_rollup('q')")

    assert days.column("SELECT proname FROM pg_proc WHERE proname LIKE '%%rollup_live%%'") == []


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_view_that_is_created_again_keeps_its_rights_and_the_views_that_read_it(
    days: Stage, query: str
) -> None:
    days.rollup("q", every="1 day", query=query)
    days.run("SELECT lakets.create_rollup_view('q', %s)", query)
    days.run("GRANT SELECT ON _rollup_rt_q TO PUBLIC; CREATE VIEW above AS TABLE _rollup_rt_q")

    days.run("SELECT lakets.create_rollup_view('q', %s)", query)

    assert days.value("SELECT has_table_privilege('public', '_rollup_rt_q', 'SELECT')")
    assert days.run("TABLE above") == days.run("TABLE _rollup_rt_q")


def test_view_is_created_again_with_other_columns(days: Stage) -> None:
    query = "SELECT date_trunc('day', at) AS bucket, min(at::text) AS v{} FROM metrics GROUP BY 1"
    days.rollup("q", every="1 day", query=query.format(""))
    days.run("SELECT lakets.create_rollup_view('q', %s)", query.format(""))

    days.run("SELECT lakets.create_rollup_view('q', %s)", query.format(", count(*) AS n"))

    assert days.run("TABLE _rollup_rt_q") == days.run("TABLE _rollup_q")


VIEWS = {
    "hours": ("lakets.time_bucket('1 hour', at)", "1 hour"),
    "local days": ("(at AT TIME ZONE 'Pacific/Niue')::date", "1 day"),
    "local days, east": ("date_trunc('day', at AT TIME ZONE 'Asia/Tokyo')", "1 day"),
    "local days as instants": ("date_trunc('day', at, 'Europe/Madrid')", "1 day"),
    "labelled at the end": ("date_trunc('day', at) + interval '1 day'", "1 day"),
    "labelled two days on": ("lakets.time_bucket('1 hour', at) + interval '2 days'", "1 hour"),
}


@pytest.mark.parametrize(("bucket", "every"), VIEWS.values(), ids=VIEWS.keys())
def test_view_has_the_whole_of_each_bucket_above_the_watermark(days: Stage, bucket: str, every: str) -> None:
    query = f"SELECT {bucket} AS bucket, count(*) AS n, sum(value) AS v FROM metrics GROUP BY 1"
    days.rollup("q", every=every, query=query)
    days.run("SELECT lakets.create_rollup_view('q', %s)", query)
    days.run(
        "INSERT INTO metrics SELECT t, t::date, 1 FROM (SELECT max(at) AS m FROM metrics) AS newest,"
        " generate_series(m + interval '1 day', m + interval '9 days', '17 minutes') AS t"
    )

    seen = days.run("SELECT * FROM _rollup_rt_q WHERE bucket > (SELECT max(bucket) FROM _rollup_q)")

    assert sorted(seen) == sorted(
        days.run(f"SELECT * FROM ({query}) AS q WHERE bucket > (SELECT max(bucket) FROM _rollup_q)")
    )
    assert len(seen) > 7


@pytest.mark.parametrize(
    "bucket",
    ["lakets.time_bucket('1 day', at)", "lakets.time_bucket('1 hour', at) + interval '1 hour'", "max(at)"],
    ids=["days", "labels at the end", "no bucket"],
)
def test_view_with_other_buckets_is_refused(days: Stage, raises: Raises, bucket: str) -> None:
    days.rollup(
        "q",
        query="SELECT lakets.time_bucket('1 hour', at) AS bucket, sum(value) AS v FROM metrics GROUP BY 1",
    )

    group = "day" if bucket == "max(at)" else "1"
    with raises("P0001"):
        days.run(
            "SELECT lakets.create_rollup_view('q', %s)",
            f"SELECT {bucket} AS bucket, sum(value) AS v FROM metrics GROUP BY {group}",
        )
