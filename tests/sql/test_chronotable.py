"""Turning a table into a ChronoTable: what it keeps, what is refused, and how it is dropped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.sandbox import Sandbox

if TYPE_CHECKING:
    import psycopg

    Portrait = dict[str, list[tuple[Any, ...]]]

CONVERT = "SELECT lakets.create_chronotable('metrics', 'ts')"

HERE = Path(__file__).parent
RICH = (HERE / "rich_table.sql").read_text()
PORTRAIT: dict[str, str] = dict(
    re.findall(r"^-- aspect: (\w+)\n(.*?;)\n", (HERE / "portrait.sql").read_text(), re.DOTALL | re.MULTILINE)
)


def portrait(db: Sandbox, relation: str = "public.metrics") -> Portrait:
    """Return the catalog entries of a table, for comparison."""
    oid = db.value("SELECT %s::regclass::oid", relation)
    return {
        name: db.conn.execute(query.encode(), {"rel": oid}).fetchall() for name, query in PORTRAIT.items()
    }


def make_rich(db: Sandbox) -> Sandbox:
    """Create a table with every kind of property, and 60 rows."""
    db.run(RICH)
    db.run(
        'INSERT INTO public.metrics (ts, site_id, value, share, tags, "The Name", blob)'
        " SELECT '2024-01-01'::timestamptz + n * interval '1 week', n % 10, n, n,"
        " ARRAY['a', n::text], 'n' || n, sha256(n::text::bytea) FROM generate_series(1, 60) AS n"
    )
    db.run("SET CONSTRAINTS ALL IMMEDIATE; TRUNCATE public.note")
    return db


@pytest.fixture
def rich(db: Sandbox) -> Sandbox:
    return make_rich(db)


@pytest.fixture(scope="module")
def portraits(sandbox: psycopg.Connection) -> tuple[Portrait, Portrait]:
    """Return the portraits of a table before and after it became a ChronoTable."""
    with sandbox.transaction(force_rollback=True):
        db = make_rich(Sandbox(sandbox))
        before = portrait(db)
        db.run(CONVERT)
        return before, portrait(db)


@pytest.mark.parametrize("aspect", PORTRAIT)
def test_a_table_keeps_everything_that_hangs_on_it(portraits: tuple[Portrait, Portrait], aspect: str) -> None:
    before, after = portraits

    assert before[aspect]
    assert after[aspect] == before[aspect]


def test_a_table_keeps_its_rows(rich: Sandbox) -> None:
    before = rich.run("SELECT m::text FROM public.metrics AS m ORDER BY 1")

    rich.run(CONVERT)

    assert rich.run("SELECT m::text FROM public.metrics AS m ORDER BY 1") == before


def test_triggers_do_not_fire_for_rows_that_are_not_new(rich: Sandbox) -> None:
    rich.run(CONVERT)

    assert rich.value("SELECT count(*) FROM public.note") == 0


def test_triggers_fire_afterwards_and_sequences_go_on(rich: Sandbox) -> None:
    rich.run(CONVERT)

    added = rich.run("INSERT INTO public.metrics (value) VALUES (1) RETURNING id, number, twice, feeling")

    assert added == [(61, 100 + 60 * 5, 2, "calm")]
    assert rich.run("SELECT * FROM public.note") == [("watchful", "INSERT"), ("After It", "INSERT")]


def test_keys_and_references_are_enforced_afterwards(rich: Sandbox) -> None:
    rich.run(CONVERT)

    with rich.refused("23505"):
        rich.run("INSERT INTO public.metrics (id, ts) SELECT id, ts FROM public.metrics LIMIT 1")
    with rich.refused("23503"):
        rich.run("INSERT INTO public.metrics (site_id) VALUES (99)")
    with rich.refused("23514"):
        rich.run("INSERT INTO public.metrics (value) VALUES (-101)")


def test_nothing_of_the_old_table_is_left(rich: Sandbox) -> None:
    rich.run(CONVERT)

    assert rich.column("SELECT relname FROM pg_class WHERE relname LIKE '%lakets_old%'") == []


def test_storage_parameters_go_to_the_chunks_now_and_later(db: Sandbox) -> None:
    db.run("CREATE TABLE metrics (ts timestamptz) WITH (fillfactor = 70, autovacuum_enabled = false)")
    table_id = db.value(CONVERT)
    db.value("SELECT lakets._ensure_partitions(%s, 0, 20)", table_id)

    options = db.column(
        "SELECT DISTINCT reloptions FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE inhparent = 'metrics'::regclass"
    )

    assert options == [["fillfactor=70", "autovacuum_enabled=false"]]


def test_settings_of_columns_go_to_the_chunks_now_and_later(db: Sandbox) -> None:
    db.run("CREATE TABLE metrics (ts timestamptz, device text, value int)")
    db.run(
        "ALTER TABLE metrics ALTER device SET (n_distinct = -0.1), ALTER device SET STATISTICS 300,"
        " ALTER value SET (n_distinct = 7, n_distinct_inherited = 9)"
    )
    table_id = db.value(CONVERT)
    db.value("SELECT lakets._ensure_partitions(%s, 0, 20)", table_id)

    settings = db.run(
        "SELECT DISTINCT relkind, attname, attstattarget::integer, attoptions FROM pg_attribute"
        " JOIN pg_class ON pg_class.oid = attrelid JOIN pg_partition_tree('metrics') ON relid = attrelid"
        " WHERE attname IN ('device', 'value') ORDER BY relkind, attname"
    )

    usual = None if int(db.value("SHOW server_version_num")) >= 170000 else -1
    assert settings == [
        ("p", "device", 300, ["n_distinct=-0.1", "n_distinct_inherited=-0.1"]),
        ("p", "value", usual, ["n_distinct=7", "n_distinct_inherited=9"]),
        ("r", "device", 300, ["n_distinct=-0.1", "n_distinct_inherited=-0.1"]),
        ("r", "value", usual, ["n_distinct=7", "n_distinct_inherited=9"]),
    ]


def test_default_privileges_do_not_add_grants(db: Sandbox) -> None:
    db.run(
        "CREATE ROLE stranger; CREATE TABLE metrics (ts timestamptz);"
        " ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO stranger"
    )

    db.run(CONVERT)

    seen = db.column(
        "SELECT oid::regclass::text FROM pg_class WHERE relname LIKE 'metrics%'"
        " AND has_table_privilege('stranger', oid, 'SELECT')"
    )
    assert seen == []


def test_rows_that_a_policy_hides_even_from_the_owner_are_kept(db: Sandbox) -> None:
    db.run(
        "CREATE ROLE keeper; GRANT USAGE, CREATE ON SCHEMA public, lakets, lakets_cdf TO keeper;"
        " GRANT ALL ON ALL TABLES IN SCHEMA lakets TO keeper;"
        " CREATE TABLE metrics (ts timestamptz, hidden boolean); ALTER TABLE metrics OWNER TO keeper;"
        " INSERT INTO metrics SELECT now(), n > 5 FROM generate_series(1, 10) AS n;"
        " ALTER TABLE metrics ENABLE ROW LEVEL SECURITY; ALTER TABLE metrics FORCE ROW LEVEL SECURITY;"
        " CREATE POLICY p ON metrics USING (NOT hidden); SET LOCAL ROLE keeper"
    )
    assert db.value("SELECT count(*) FROM metrics") == 5

    db.run(CONVERT)

    assert db.value("SELECT count(*) FROM metrics") == 5
    db.run("RESET ROLE")
    assert db.value("SELECT count(*) FROM metrics") == 10


UNFIT = {
    "a primary key without the time": ("ALTER TABLE metrics ADD PRIMARY KEY (id)", "P0001", "metrics_pkey"),
    "a unique index without the time": (
        "CREATE UNIQUE INDEX one ON metrics (id)",
        "P0001",
        "one .*CREATE UNIQUE",
    ),
    "a key that only includes the time": (
        "CREATE UNIQUE INDEX two ON metrics (id) INCLUDE (ts)",
        "P0001",
        "two",
    ),
    "a key on an expression of the time": (
        "CREATE UNIQUE INDEX n ON metrics (date_part('day', at))",
        "P0001",
        "n ",
    ),
    "an exclusion constraint": (
        "ALTER TABLE metrics ADD CONSTRAINT e EXCLUDE USING btree (id WITH =)",
        "P0001",
        "e",
    ),
    "a foreign key that points at it": (
        "ALTER TABLE metrics ADD UNIQUE (id, ts); CREATE TABLE child (id int, ts timestamptz,"
        " FOREIGN KEY (id, ts) REFERENCES metrics (id, ts))",
        "P0001",
        "on (public.)?child",
    ),
    "a foreign key to itself": (
        "ALTER TABLE metrics ADD UNIQUE (id, ts), ADD FOREIGN KEY (id, ts) REFERENCES metrics (id, ts)",
        "P0001",
        "foreign keys",
    ),
    "a view": ("CREATE VIEW seen AS SELECT * FROM metrics", "P0001", "view public.seen"),
    "a materialized view": ("CREATE MATERIALIZED VIEW kept AS TABLE metrics", "P0001", "view public.kept"),
    "a rule": ("CREATE RULE r AS ON INSERT TO metrics DO ALSO NOTIFY x", "P0001", "rule r"),
    "a function of its row": ("CREATE FUNCTION f(metrics) RETURNS int RETURN 1", "P0001", "function .*f"),
    "a function that reads it": (
        "CREATE FUNCTION g() RETURNS bigint RETURN (SELECT count(*) FROM metrics)",
        "P0001",
        "g",
    ),
    "a column of its type": ("CREATE TABLE other (m metrics[])", "P0001", "other"),
    "a policy elsewhere": (
        "CREATE TABLE o (i int); CREATE POLICY p ON o USING (i IN (SELECT id FROM metrics))",
        "P0001",
        "policy p",
    ),
    "a publication": ("CREATE PUBLICATION out FOR TABLE metrics", "P0001", "publication .*out"),
    "a child": ("CREATE TABLE child () INHERITS (metrics)", "P0001", "ordinary"),
    "a parent": ("CREATE TABLE parent (); ALTER TABLE metrics INHERIT parent", "P0001", "ordinary"),
    "an invalid check": (
        "INSERT INTO metrics VALUES (now(), -1); ALTER TABLE metrics ADD CHECK (id > 0) NOT VALID",
        "23514",
        "violate",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_would_be_lost_is_refused_and_nothing_changes(db: Sandbox, case: str) -> None:
    statement, condition, match = UNFIT[case]
    db.run("CREATE TABLE metrics (ts timestamptz, id int, at timestamp)")
    db.run(statement)
    before = portrait(db)

    with db.refused(condition, match):
        db.run(CONVERT)

    assert portrait(db) == before
    assert db.column("SELECT table_name FROM lakets._chronotable_registry") == []


MISUSE = {
    "no such table": ("'nothing', 'ts'", "P0001", "public.nothing does not exist"),
    "no such schema": ("'metrics', 'ts', p_schema_name => 'nowhere'", "P0001", "nowhere.metrics"),
    "no such column": ("'metrics', 'at'", "P0001", "no column at"),
    "a column of another type": ("'metrics', 'value'", "P0001", "type double precision"),
    "a column of a domain": ("'metrics', 'wrapped'", "P0001", "type public.instant"),
    "a view": ("'seen', 'ts'", "P0001", "ordinary"),
    "a partitioned table": ("'divided', 'ts'", "P0001", "already partitioned"),
    "a partition": ("'part', 'ts'", "P0001", "ordinary"),
    "a foreign table": ("'far', 'ts'", "P0001", "ordinary"),
    "a temporary table": ("'brief', 'ts', p_schema_name => 'pg_temp'", "P0001", "ordinary"),
    "a table of the feed": ("'loose', 'ts', p_schema_name => 'lakets_cdf'", "P0001", "schema"),
    "a ChronoTable": ("'chrono', 'ts'", "P0001", "already a ChronoTable"),
}


@pytest.mark.parametrize("case", MISUSE)
def test_wrong_input_is_told_clearly(db: Sandbox, case: str) -> None:
    arguments, condition, match = MISUSE[case]
    db.run(
        "CREATE DOMAIN instant AS timestamptz; CREATE VIEW seen AS SELECT now() AS ts;"
        " CREATE TABLE metrics (ts timestamptz, value float8, wrapped instant);"
        " CREATE TABLE divided (ts timestamptz) PARTITION BY RANGE (ts);"
        " CREATE TABLE part PARTITION OF divided DEFAULT;"
        " CREATE TEMP TABLE brief (ts timestamptz) ON COMMIT DROP;"
        " CREATE TABLE lakets_cdf.loose (ts timestamptz);"
        " CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        " CREATE FOREIGN TABLE far (ts timestamptz) SERVER s"
    )
    db.chronotable(name="chrono")

    with db.refused(condition, match):
        db.run(f"SELECT lakets.create_chronotable({arguments})")


@pytest.mark.parametrize(
    ("interval", "column"),
    [
        (None, "ts"),
        ("0", "ts"),
        ("-1 day", "ts"),
        ("-1 month 40 days", "ts"),
        ("1 month 1 day", "ts"),
        ("1 year 1 second", "ts"),
        ("1.5 seconds", "ts"),
        ("1000 years", "ts"),
        ("36 hours", "day"),
    ],
)
def test_an_interval_that_makes_no_grid_is_refused(db: Sandbox, interval: str | None, column: str) -> None:
    db.run("CREATE TABLE metrics (ts timestamptz, day date)")

    with db.refused("P0001", "interval"):
        db.run("SELECT lakets.create_chronotable('metrics', %s, %s::interval)", column, interval)


def test_an_endless_interval_is_refused_where_postgres_has_one(db: Sandbox) -> None:
    db.run("CREATE TABLE metrics (ts timestamptz)")
    condition = "P0001" if db.value("SHOW server_version_num") >= "170000" else "22007"

    with db.refused(condition):
        db.run("SELECT lakets.create_chronotable('metrics', 'ts', 'infinity')")


def test_a_second_call_may_ask_to_be_content(db: Sandbox) -> None:
    table_id = db.chronotable()

    again = db.value("SELECT lakets.create_chronotable('metrics', 'ts', p_if_not_exists => true)")

    assert again == table_id


@pytest.mark.parametrize("call", [CONVERT, "SELECT lakets.enable_sync('chrono')"], ids=["create", "sync"])
def test_what_copies_rows_refuses_an_old_snapshot(db: Sandbox, call: str) -> None:
    db.run("CREATE TABLE metrics (ts timestamptz)")
    db.chronotable(name="chrono")
    # Within a transaction the level cannot change any more; that the level is asked for is what is
    # shown.
    db.run(
        "CREATE OR REPLACE FUNCTION lakets._require_read_committed() RETURNS void LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'asked'; END $$"
    )

    with db.refused("P0001", "asked"):
        db.run(call)


@pytest.mark.parametrize("schema", ["public", 'Odd "schema".ü'])
@pytest.mark.parametrize("name", ["metrics", 'Odd "name".ü %s', "x" * 63, "größe" * 9])
def test_any_name_will_do(db: Sandbox, name: str, schema: str) -> None:
    quoted = [part.replace('"', '""') for part in (schema, name)]
    db.run(f'CREATE SCHEMA IF NOT EXISTS "{quoted[0]}"')
    db.run(f'CREATE TABLE "{quoted[0]}"."{quoted[1]}" ("T s" timestamptz, "v%" int, PRIMARY KEY ("T s"))')
    table_id = db.value("SELECT lakets.create_chronotable(%s, 'T s', '1 day', %s)", name, schema)
    db.run("SELECT lakets.enable_sync(%s, %s)", name, schema)
    for statement in (
        "INSERT INTO {} VALUES ('2024-01-01+00', 1), ('2024-01-02+00', 2)",
        'UPDATE {} SET "v%" = 3 WHERE "v%" = 1',
        'DELETE FROM {} WHERE "v%" = 2',
    ):
        db.run(statement.format(f'"{quoted[0]}"."{quoted[1]}"'))
    db.run("SELECT lakets._ensure_partitions(%s)", table_id)

    chunks = db.run(
        "SELECT chunk_name, size_bytes FROM lakets.show_chunks(%s, p_schema_name => %s)", name, schema
    )
    shadow = db.shadow(name, schema)
    assert db.run(f"SELECT * FROM {shadow}".replace("%", "%")) == db.run(f'TABLE "{quoted[0]}"."{quoted[1]}"')
    assert chunks[0][0] == f"{schema}.{name}_20240101_000000"
    assert all(size > 0 for _, size in chunks)


def test_two_schemas_may_have_tables_of_one_name(db: Sandbox) -> None:
    db.chronotable(synced=True)
    db.chronotable(schema="other", synced=True)
    db.run("INSERT INTO public.metrics VALUES (now(), 'here', 1)")
    db.run("INSERT INTO other.metrics VALUES (now(), 'there', 2), (now(), 'there', 3)")

    assert db.shadow() == "lakets_cdf._shadow_metrics"
    assert db.shadow(schema="other") != db.shadow()
    assert db.mirror_difference() == []
    assert db.mirror_difference(schema="other") == []


def test_names_that_spell_alike_with_their_schema_do_not_clash(db: Sandbox) -> None:
    first = db.chronotable(schema="a", name="b.c")
    second = db.chronotable(schema="a.b", name="c")

    names = db.run(
        "SELECT chronotable_id, count(*) FROM lakets._chunk_metadata"
        " WHERE chunk_name LIKE 'a.b.c\\_%' GROUP BY 1"
    )

    assert dict(names).keys() == {first, second}


def test_a_dropped_chronotable_leaves_nothing(db: Sandbox) -> None:
    relations = (
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace::regnamespace::text !~ '^pg_' ORDER BY 1"
    )
    functions = (
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'lakets'::regnamespace ORDER BY 1"
    )
    before = (db.column(relations), db.column(functions))
    db.chronotable(synced=True)
    db.run("INSERT INTO metrics VALUES (now(), 'a', 1), ('2001-01-01', 'b', 2)")
    db.run("SELECT lakets.add_tiered_retention_policy('metrics', '1 day', '2 days')")
    query = "SELECT lakets.time_bucket('1 {0}', {1}) AS bucket, count(*) FROM public.{2} GROUP BY 1"
    db.run("SELECT lakets.create_rollup('hourly', %s, '1 hour')", query.format("hour", "ts", "metrics"))
    db.run(
        "SELECT lakets.create_rollup('daily', %s, '1 day')", query.format("day", "bucket", "_rollup_hourly")
    )
    db.run("SELECT lakets.enable_sync('daily')")

    db.run("SELECT lakets.drop_chronotable('metrics')")

    assert (db.column(relations), db.column(functions)) == before
    for registry in re.findall(
        r"\S+",
        "_chronotable_registry _chunk_metadata _policy_registry _rollup_registry _change_log _feed_proof",
    ):
        assert db.value(f"SELECT count(*) FROM lakets.{registry}") == 0, registry


def test_a_chronotable_whose_table_is_gone_can_be_dropped(db: Sandbox) -> None:
    db.chronotable(synced=True)
    db.run("DROP TABLE metrics")

    db.run("SELECT lakets.drop_chronotable('metrics')")

    assert db.value("SELECT count(*) FROM lakets._chronotable_registry") == 0
    assert db.value("SELECT to_regclass('lakets_cdf._shadow_metrics')") is None
