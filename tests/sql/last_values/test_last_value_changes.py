"""The last value cache after changes of its table, with other roles, and after an install."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.engine import install_script
from tests.sandbox import Sandbox
from tests.sql.last_values.scene import ENABLE, NOON, cached, write

if TYPE_CHECKING:
    import psycopg

    from tests.stage import Raises, Stage

# How it goes


def test_disabled_it_leaves_nothing_behind(metrics: Sandbox) -> None:
    before = (
        "SELECT proname FROM pg_proc WHERE proname LIKE '\\_lvc\\_%%' AND prorettype = 'trigger'::regtype"
    )
    assert metrics.column(before) != []

    metrics.run("SELECT lakets.disable_lvc('metrics')")

    assert metrics.column(before) == []
    assert metrics.value("SELECT to_regclass('_lvc_metrics')") is None
    assert metrics.value("SELECT count(*) FROM lakets._lvc_registry") == 0
    assert metrics.column("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'trg_lakets_lvc%%'") == []
    write(metrics, (0, "a", 1))
    metrics.run(ENABLE)
    assert cached(metrics) == {"a": 1}


def test_it_goes_with_its_table(metrics: Sandbox) -> None:
    metrics.run("SELECT lakets.drop_chronotable('metrics')")

    assert metrics.value("SELECT to_regclass('_lvc_metrics')") is None
    assert metrics.value("SELECT count(*) FROM lakets._lvc_registry") == 0
    assert metrics.column("SELECT proname FROM pg_proc WHERE proname ~ '^_lvc_[0-9]'") == []


def test_it_stays_as_a_table_where_its_table_is_forgotten(metrics: Sandbox) -> None:
    write(metrics, (0, "a", 1))
    metrics.run("DROP TABLE metrics")

    metrics.run("SELECT lakets.forget_chronotable('metrics')")

    assert cached(metrics) == {"a": 1}
    assert metrics.column("SELECT proname FROM pg_proc WHERE proname ~ '^_lvc_[0-9]'") == []


# Triggers of others

AGAIN = """
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF pg_trigger_depth() = 1 THEN UPDATE %s SET "v%%" = "v%%" + 1000 WHERE "v%%" < 1000; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER a_first AFTER %s ON %s FOR EACH %s EXECUTE FUNCTION again()"""


@pytest.mark.parametrize("name", ["metrics", 'Odd "name".ü %s'])
@pytest.mark.parametrize("each", ["ROW", "STATEMENT"])
@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
def test_a_row_that_another_trigger_changes_is_cached_as_it_is_then(
    db: Sandbox, event: str, each: str, name: str
) -> None:
    """The triggers of that change run first, and those of the statement see the row of before."""
    table = '"' + name.replace('"', '""') + '"'
    db.run(f'CREATE TABLE {table} ("T s" timestamptz, "d%" text, "v%" int)')
    db.run("SELECT lakets.create_chronotable(%s, 'T s', '1 day')", name)
    db.run("SELECT lakets.enable_lvc(%s, '{d%%}', '{v%%}')", name)
    if event == "UPDATE":
        db.run(f"INSERT INTO {table} SELECT {NOON}, d, 0 FROM unnest('{{a,b}}'::text[]) AS d")
    db.conn.execute((AGAIN % (table, event, table, each)).encode())

    if event == "INSERT":
        rows = f"({NOON}, 'a', 1), ({NOON} - interval '1 h', 'a', 2), ({NOON}, 'b', 3)"
        db.run(f"INSERT INTO {table} VALUES {rows}")
    else:
        db.conn.execute(f"""UPDATE {table} SET "v%" = CASE "d%" WHEN 'a' THEN 1 ELSE 3 END""".encode())

    newest = "SELECT d, v FROM lakets.latest_values(%s) AS t (d text, v int, at timestamptz) ORDER BY d"
    assert db.run(newest, name) == [("a", 1001), ("b", 1003)]


def test_it_is_so_whatever_columns_the_table_gets_later(metrics: Sandbox) -> None:
    metrics.run("ALTER TABLE metrics ADD lakets_place int, ADD one int, ADD n int, ADD r int")
    metrics.conn.execute(
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF pg_trigger_depth() = 1 THEN UPDATE metrics SET value = value + 1000; END IF;"
        " RETURN NULL; END $$;"
        " CREATE TRIGGER a_first AFTER INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION again()"
    )

    write(metrics, (0, "a", 1.0))

    assert cached(metrics) == {"a": 1001.0}


def test_rows_that_a_trigger_of_another_table_inserts_are_not_read_again(metrics: Sandbox) -> None:
    """The table may have no index with which they would be found."""
    metrics.conn.execute(
        f"CREATE TABLE raw (d text, v float8);"
        f" CREATE FUNCTION forward() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" INSERT INTO metrics (ts, device, value) VALUES ({NOON}, NEW.d, NEW.v); RETURN NULL; END $$;"
        f" CREATE TRIGGER forward AFTER INSERT ON raw FOR EACH ROW EXECUTE FUNCTION forward()"
    )
    scans = (
        "SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_stat_xact_user_tables"
        " WHERE relname ~ '^metrics'"
    )
    before = metrics.value(scans)

    metrics.run("INSERT INTO raw VALUES ('a', 1), ('b', 2), ('a', 3)")

    assert metrics.value(scans) == before
    assert cached(metrics) == {"a": 3.0, "b": 2.0}


# What is done to the table, and to its columns


def test_a_renamed_table_keeps_its_cache(metrics: Sandbox) -> None:
    metrics.run("ALTER TABLE metrics RENAME TO readings")
    metrics.run(f"INSERT INTO readings VALUES ({NOON}, 'a', 1)")

    assert metrics.run(
        "SELECT d, v FROM lakets.latest_values('readings') AS t (d text, v float8, at timestamptz)"
    ) == [("a", 1)]
    metrics.run("SELECT lakets.disable_lvc('readings')")
    assert metrics.value("SELECT to_regclass('_lvc_metrics')") is None


def test_a_table_in_the_place_of_the_cache_is_left_alone(metrics: Sandbox) -> None:
    metrics.run("ALTER TABLE _lvc_metrics RENAME TO kept; CREATE TABLE _lvc_metrics (LIKE kept)")
    metrics.run("INSERT INTO _lvc_metrics (device, last_updated) VALUES ('mine', now())")

    write(metrics, (0, "a", 1))
    metrics.run("ALTER TABLE metrics RENAME value TO reading")
    metrics.run(f"INSERT INTO metrics VALUES ({NOON}, 'b', 1)")

    assert metrics.column("SELECT enabled FROM lakets.lvc_stats()") == [False]
    with metrics.refused("P0001", "another table took the place of"):
        metrics.run("SELECT * FROM lakets.latest_values('metrics') AS t (a int)")
    metrics.run("SELECT lakets.disable_lvc('metrics')")
    assert metrics.column("SELECT device FROM _lvc_metrics") == ["mine"]


def test_a_renamed_schema_is_reported_and_followed_by_the_next_job(db: Sandbox) -> None:
    db.chronotable("ts timestamptz, device text, value float8", schema="here")
    db.run("SELECT lakets.enable_lvc('metrics', '{device}', '{value}', 'here')")
    db.run("ALTER SCHEMA here RENAME TO there")
    db.run(f"INSERT INTO there.metrics VALUES ({NOON}, 'a', 1)")
    assert db.column("SELECT enabled FROM lakets.lvc_stats()") == [False]

    db.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")
    db.run(f"INSERT INTO there.metrics VALUES ({NOON}, 'b', 2)")

    assert db.run("SELECT device, value FROM there._lvc_metrics ORDER BY 1") == [("a", 1), ("b", 2)]
    assert db.column("SELECT enabled FROM lakets.lvc_stats()") == [True]


CHANGES = {
    "value renamed": ("ALTER TABLE metrics RENAME value TO reading", "value"),
    "key renamed": ("ALTER TABLE metrics RENAME device TO sensor", "device"),
    "value dropped": ("ALTER TABLE metrics DROP COLUMN value", "value"),
    "key dropped": ("ALTER TABLE metrics DROP COLUMN device", "device"),
    "type changed": ("ALTER TABLE metrics ALTER value TYPE numeric", "value"),
    "swapped": (
        "ALTER TABLE metrics RENAME device TO x; ALTER TABLE metrics RENAME value TO device;"
        " ALTER TABLE metrics RENAME x TO value",
        "device, value",
    ),
}


@pytest.mark.parametrize(("change", "columns"), CHANGES.values(), ids=list(CHANGES))
def test_a_change_of_cached_columns_stops_no_writer_and_leaves_no_old_value(
    metrics: Sandbox, change: str, columns: str
) -> None:
    write(metrics, (0, "a", 1))
    for statement in change.split("; "):
        metrics.run(statement)
    warned: list[str] = []
    metrics.conn.add_notice_handler(lambda notice: warned.append(str(notice.message_primary)))
    metrics.run("SET LOCAL client_min_messages = warning")

    for _ in range(2):
        metrics.run(f"INSERT INTO metrics (ts) VALUES ({NOON} + interval '1 hour')")

    assert metrics.value("SELECT count(*) FROM metrics") == 3
    assert metrics.value("SELECT count(*) FROM _lvc_metrics") == 0
    assert len(warned) == 1
    assert "is emptied" in warned[0]
    assert metrics.column("SELECT enabled FROM lakets.lvc_stats()") == [False]
    with metrics.refused("P0001", f"dropped, renamed or changed: {columns}"):
        metrics.run("SELECT * FROM lakets.latest_values('metrics') AS t (a int)")


@pytest.mark.parametrize("twice", ['"twice"', '"odd\' #1 \\ {col}"'], ids=["plain name", "odd name"])
@pytest.mark.parametrize("how", ["anew", "expression"])
def test_a_column_that_was_made_anew_leaves_no_old_value(
    db: Sandbox, postgres_version: int, twice: str, how: str
) -> None:
    column = twice + " float8 GENERATED ALWAYS AS (value * %s) STORED"
    db.chronotable(f"ts timestamptz, device text, value float8, {column % 2}")
    db.run("SELECT lakets.enable_lvc('metrics', '{device}', ARRAY[%s])", twice.strip('"'))
    insert = f"INSERT INTO metrics (ts, device, value) VALUES ({NOON}, %s, 1)"
    db.run(insert, "a")
    db.run(insert, "b")

    if how == "expression" and postgres_version >= 17:
        db.run(f"ALTER TABLE metrics ALTER COLUMN {twice} SET EXPRESSION AS (value * 100)")
    else:
        db.run(f"ALTER TABLE metrics DROP COLUMN {twice}")
        db.run(f"ALTER TABLE metrics ADD COLUMN {column % 100}")

    assert db.column("SELECT enabled FROM lakets.lvc_stats()") == [False]
    db.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")
    with db.refused("P0001", "dropped, renamed or changed"):
        db.run("SELECT * FROM lakets.latest_values('metrics') AS t (a int)")
    db.run(insert, "a")
    assert db.value("SELECT count(*) FROM _lvc_metrics") == 0
    db.run("SELECT lakets.disable_lvc('metrics')")
    db.run("SELECT lakets.enable_lvc('metrics', '{device}', ARRAY[%s])", twice.strip('"'))
    assert db.column(f"SELECT {twice} FROM _lvc_metrics") == [100, 100]
    assert db.column("SELECT enabled FROM lakets.lvc_stats()") == [True]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE metrics ADD COLUMN more int DEFAULT 7",
        "ALTER TABLE metrics ALTER value SET DEFAULT 7",
        "ALTER TABLE metrics DROP COLUMN spare",
        "ALTER TABLE metrics ALTER spare TYPE bigint",
        "ALTER TABLE metrics RENAME spare TO other",
    ],
)
def test_a_change_of_other_columns_changes_nothing(db: Sandbox, change: str) -> None:
    db.chronotable("spare int, ts timestamptz, device text, value float8")
    db.run(ENABLE)
    insert = f"INSERT INTO metrics (ts, device, value) VALUES ({NOON}, 'a', %s)"
    db.run(insert, 1)

    db.run(change)
    db.run(insert, 2)

    assert cached(db) == {"a": 2}
    assert db.column("SELECT enabled FROM lakets.lvc_stats()") == [True]


def test_an_attached_partition_is_cached_when_it_is_adopted(db: Sandbox) -> None:
    db.chronotable("ts timestamptz, device text, value float8")
    db.run(ENABLE)
    write(db, (0, "a", 1), (0, "b", 1))
    db.run("CREATE TABLE made (value float8, device text, ts timestamptz)")
    db.run(
        f"INSERT INTO made (ts, device, value) SELECT {NOON} + late, key, n FROM (VALUES"
        " (interval '1 day', 'a', 2), ('1 day 1 minute', 'a', 3), ('1 day', 'c', 4)) AS v (late, key, n)"
    )
    day = "FOR VALUES FROM ('{}-01-02 00:00+00') TO ('{}-01-03 00:00+00')"
    db.run(f"ALTER TABLE metrics ATTACH PARTITION made {day.format(2026, 2026)}")
    db.run("CREATE TABLE older (LIKE metrics)")
    db.run("INSERT INTO older VALUES ('2025-01-02 05:00+00', 'b', 9)")
    db.run(f"ALTER TABLE metrics ATTACH PARTITION older {day.format(2025, 2025)}")

    assert db.value("SELECT lakets.adopt_partitions('metrics')") == 2

    assert cached(db) == {"a": 3, "b": 1, "c": 4}


def test_a_cache_that_was_dropped_stops_no_writer(metrics: Sandbox) -> None:
    metrics.run("DROP TABLE _lvc_metrics")

    write(metrics, (0, "a", 1))

    with metrics.refused("P0001", "_lvc_metrics does not exist"):
        metrics.run("SELECT * FROM lakets.latest_values('metrics') AS t (a int)")
    metrics.run("SELECT lakets.disable_lvc('metrics')")


def test_disabled_triggers_are_reported(metrics: Sandbox) -> None:
    metrics.run("ALTER TABLE metrics DISABLE TRIGGER trg_lakets_lvc")

    assert metrics.column("SELECT enabled FROM lakets.lvc_stats()") == [False]


# Rights


@pytest.fixture
def roles(metrics: Sandbox) -> Sandbox:
    metrics.run("CREATE ROLE lvc_owner; CREATE ROLE lvc_writer; CREATE ROLE lvc_reader")
    metrics.run(
        "GRANT CREATE ON SCHEMA public, lakets, lakets_cdf TO lvc_owner;"
        "GRANT USAGE ON SCHEMA lakets, lakets_cdf TO lvc_owner"
    )
    metrics.run("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO lvc_owner")
    metrics.run("SET LOCAL ROLE lvc_owner")
    metrics.run("CREATE TABLE theirs (ts timestamptz, device text, value float8)")
    metrics.run("SELECT lakets.create_chronotable('theirs', 'ts', '1 day')")
    metrics.run("SELECT lakets.enable_lvc('theirs', '{device}', '{value}')")
    metrics.run("GRANT INSERT ON theirs TO lvc_writer")
    metrics.run("RESET ROLE")
    return metrics


def test_a_writer_needs_no_right_on_the_cache_and_has_none(roles: Sandbox) -> None:
    roles.run("SET LOCAL ROLE lvc_writer")
    roles.run(f"INSERT INTO theirs VALUES ({NOON}, 'a', 1)")
    for statement in (
        "SELECT * FROM _lvc_theirs",
        "UPDATE _lvc_theirs SET value = 0",
        "DELETE FROM _lvc_theirs",
    ):
        with roles.refused("insufficient_privilege"):
            roles.run(statement)
    roles.run("RESET ROLE")

    assert roles.run("SELECT device, value FROM _lvc_theirs") == [("a", 1)]


def test_nobody_else_can_put_the_trigger_on_a_table_of_their_own(roles: Sandbox) -> None:
    function = roles.value(
        "SELECT tgfoid::regprocedure::text FROM pg_trigger WHERE tgrelid = 'theirs'::regclass"
        " AND tgname = 'trg_lakets_lvc'"
    )
    roles.run("GRANT CREATE ON SCHEMA public TO lvc_writer; GRANT USAGE ON SCHEMA lakets TO lvc_writer")
    roles.run("SET LOCAL ROLE lvc_writer")
    roles.run("CREATE TABLE forged (ts timestamptz, device text, value float8)")

    with roles.refused("insufficient_privilege", "permission denied for function"):
        roles.run(
            "CREATE TRIGGER t AFTER INSERT ON forged REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT"
            f" EXECUTE FUNCTION {function}"
        )


def test_a_reader_needs_what_is_documented(roles: Sandbox) -> None:
    latest = "SELECT * FROM lakets.latest_values('theirs') AS t (d text, v float8, at timestamptz)"
    roles.run("GRANT USAGE ON SCHEMA lakets TO lvc_reader")
    roles.run("GRANT SELECT ON lakets._chronotable_registry, lakets._lvc_registry TO lvc_reader")
    roles.run("SET LOCAL ROLE lvc_reader")
    with roles.refused("insufficient_privilege", "_lvc_theirs"):
        roles.run(latest)
    assert (None,) in roles.run("SELECT cached_series FROM lakets.lvc_stats()")
    roles.run("RESET ROLE")
    roles.run("GRANT SELECT ON _lvc_theirs TO lvc_reader")
    roles.run("SET LOCAL ROLE lvc_reader")

    assert roles.run(latest) == []
    roles.run("RESET ROLE")


def test_a_row_that_replication_applies_is_cached(metrics: Sandbox) -> None:
    metrics.run("SET LOCAL session_replication_role = replica")
    write(metrics, (0, "a", 1))

    assert cached(metrics) == {"a": 1}


# Installing again, and elsewhere


def test_an_install_keeps_the_cache_alive(conn: psycopg.Connection) -> None:
    db = Sandbox(conn)
    db.chronotable("ts timestamptz, device text, value float8")
    db.run(ENABLE)
    write(db, (0, "a", 1), (0, "b", 1))
    db.run("DELETE FROM metrics")

    conn.execute(install_script().encode())
    write(db, (1, "a", 2))

    assert cached(db) == {"a": 2, "b": 1}


def test_a_cache_of_0_1_3_is_filled_with_the_times_of_its_rows(conn: psycopg.Connection) -> None:
    db = Sandbox(conn)
    db.chronotable("ts timestamptz, device text, value float8")
    write(db, (0, "a", 1), (5, "a", 2), (5, "c", 7))
    # As 0.1.3 leaves it: the time of the write, the value of a row that came late, and of one that
    # is gone.
    db.run(
        "CREATE TABLE _lvc_metrics (device text NOT NULL, value float8,"
        " last_updated timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (device));"
        "INSERT INTO _lvc_metrics VALUES ('a', 1, '2026-02-01+00'), ('gone', 5, '2026-02-01+00');"
        "INSERT INTO lakets._lvc_registry (chronotable_id, cache_table_name, key_columns, value_columns)"
        " SELECT id, '_lvc_metrics', '{device}', '{value}' FROM lakets._chronotable_registry"
    )

    conn.execute(install_script().encode())
    write(db, (6, "a", 3))

    assert cached(db) == {"a": 3, "c": 7, "gone": 5}


def test_a_restored_cache_is_kept(conn: psycopg.Connection) -> None:
    db = Sandbox(conn)
    db.chronotable("ts timestamptz, device text, value float8")
    db.run(ENABLE)
    # A restore gives the table another number than the one that the function was written for.
    name, body = db.run("SELECT proname, prosrc FROM pg_proc WHERE proname ~ '^_lvc_[0-9]+$'")[0]
    body = body.replace(str(db.value("SELECT 'metrics'::regclass::oid::int")), "1")
    db.run(
        f"CREATE OR REPLACE FUNCTION lakets.{name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER"
        f" SET search_path = pg_catalog, pg_temp AS $body$ {body.lstrip()} $body$"
    )

    write(db, (0, "a", 1))

    assert cached(db) == {"a": 1}


THINGS = {
    "trigger": (
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        " CREATE TRIGGER odd BEFORE INSERT ON _lvc_metrics FOR EACH ROW EXECUTE FUNCTION swallow()",
        "DROP TRIGGER odd ON _lvc_metrics",
    ),
    "rule": (
        "CREATE RULE odd AS ON INSERT TO _lvc_metrics DO INSTEAD NOTHING",
        "DROP RULE odd ON _lvc_metrics",
    ),
}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_a_cache_that_may_not_store_its_rows_is_out_of_date_until_it_is_made_again(
    stage: Stage, raises: Raises, thing: str, isolation: str
) -> None:
    put, remove = THINGS[thing]
    stage.table()
    stage.run("SELECT lakets.enable_lvc('metrics', '{id}', '{value}')")
    latest = (
        "SELECT value FROM lakets.latest_values('metrics')"
        " AS (id int, value int, last_updated timestamptz) WHERE id = 1"
    )
    stage.run("UPDATE metrics SET value = 10 WHERE id = 1")
    stage.run(put)
    stage.run(f"SET default_transaction_isolation = '{isolation}'")

    stage.run("UPDATE metrics SET value = 100 WHERE id = 1")

    stage.run("RESET default_transaction_isolation")
    with raises("P0001", match=f"out of date: rows .* discarded or changed by {thing} odd"):
        stage.value(latest)
    stage.run(remove)
    with raises("P0001", match="out of date: rows .* could be discarded or changed for a time"):
        stage.value(latest)
    assert stage.column("SELECT enabled FROM lakets.lvc_stats()") == [False]
    stage.run("SELECT lakets.disable_lvc('metrics')")
    stage.run("SELECT lakets.enable_lvc('metrics', '{id}', '{value}')")
    assert stage.value(latest) == 100
    assert stage.value("SELECT count(*) FROM lakets._mirror_gap") == 0


def test_a_cache_is_refused_if_a_tool_puts_a_trigger_on_every_new_table(db: Sandbox) -> None:
    db.chronotable("ts timestamptz, device text, value float8")
    db.run(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        " CREATE FUNCTION tool() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN CREATE TRIGGER odd"
        " BEFORE INSERT ON public._lvc_metrics FOR EACH ROW EXECUTE FUNCTION public.swallow(); END $$;"
        " CREATE EVENT TRIGGER tool ON ddl_command_end WHEN TAG IN ('CREATE TABLE AS')"
        " EXECUTE FUNCTION tool()"
    )

    with db.refused("raise_exception", match="cannot write to public._lvc_metrics: .* by trigger odd"):
        db.run(ENABLE)
