"""A shadow that may lack a change is recorded as such, until it is repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.mirror.scene import FILL, mirror, missed, problem

if TYPE_CHECKING:
    from tests.sandbox import Sandbox
    from tests.stage import Raises, Stage

# What may have been missed


def test_a_row_that_is_not_found_is_noted(either: Sandbox) -> None:
    either.run(f"DELETE FROM {either.shadow()} WHERE id = 3")
    assert problem(either) is None

    either.run("UPDATE metrics SET v = 'x' WHERE id = 3")

    assert "may lack changes" in (problem(either) or "")


def test_a_deleted_row_that_is_not_found_is_noted_once(either: Sandbox) -> None:
    either.run(f"DELETE FROM {either.shadow()}")

    either.run("DELETE FROM metrics WHERE id = 3; DELETE FROM metrics WHERE id = 4")

    assert missed(either) == 1


def test_a_row_that_a_trigger_of_its_own_statement_changes_is_noted(either: Sandbox) -> None:
    """That change reaches the mirror first, and does not find the row there yet."""
    either.run(
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE metrics SET v = v || '!' WHERE id = NEW.id; RETURN NULL; END $$;"
        " CREATE TRIGGER again AFTER INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION again()"
    )

    either.run("INSERT INTO metrics (id, ts, v) VALUES (31, '2024-01-02', 'new')")

    assert "may lack changes" in (problem(either) or "")
    either.run("SELECT lakets.enable_sync('metrics', %s)", either.schema)
    assert (problem(either), either.mirror_difference()) == (None, [])
    assert "new!" in either.column(f"SELECT v FROM {either.shadow()}")


def test_one_copy_too_few_is_noted(db: Sandbox) -> None:
    mirror(db, "no key", None)
    db.run("INSERT INTO metrics (id, ts, v) SELECT 1, '2024-01-01', 'same' FROM generate_series(1, 5)")
    db.run(
        "DELETE FROM lakets_cdf._shadow_metrics WHERE ctid = (SELECT max(ctid) FROM"
        " lakets_cdf._shadow_metrics)"
    )

    db.run("DELETE FROM metrics WHERE ctid IN (SELECT ctid FROM metrics LIMIT 3)")
    assert missed(db) == 0
    db.run("DELETE FROM metrics")

    assert missed(db) == 1


def test_a_trigger_that_changes_rows_of_its_own_statement_is_noted(either: Sandbox) -> None:
    either.run(
        "CREATE FUNCTION latest() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN UPDATE metrics SET v = 'old' WHERE id = NEW.id - 1; RETURN NULL; END $$;"
        " CREATE TRIGGER latest AFTER INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION latest()"
    )
    either.run("INSERT INTO metrics (id, ts, v) VALUES (31, '2024-01-01', 'new')")
    assert either.mirror_difference() == []
    assert missed(either) == 0

    either.run(
        "INSERT INTO metrics (id, ts, v) VALUES (41, '2024-01-01', 'new'), (42, '2024-01-01', 'newer')"
    )

    assert missed(either) == 1
    either.sync()
    assert either.mirror_difference() == []
    assert problem(either) is None


ALTERATIONS = {
    "add a column": "ALTER TABLE metrics ADD COLUMN w int",
    "add a column with values": "ALTER TABLE metrics ADD COLUMN w numeric(9, 3) DEFAULT 7",
    "drop a column": "ALTER TABLE metrics DROP COLUMN v",
    "drop and add": "ALTER TABLE metrics DROP COLUMN v, ADD COLUMN v int",
    "rename a column": "ALTER TABLE metrics RENAME COLUMN v TO w",
    "widen a column": "ALTER TABLE metrics ALTER COLUMN id TYPE bigint",
    "change a type": "ALTER TABLE metrics ALTER COLUMN v TYPE varchar(50)",
    "change to what it cannot be cast to": "ALTER TABLE metrics ALTER COLUMN v TYPE point USING point(1, 2)",
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_writers_go_on_when_columns_change_and_nothing_counts_as_durable(
    either: Sandbox, alteration: str
) -> None:
    either.run(ALTERATIONS[alteration])

    either.run("INSERT INTO metrics (id, ts) VALUES (200, '2024-01-02'), (201, '2024-01-02')")
    either.run("UPDATE metrics SET id = 300 WHERE id = 200")
    either.run("DELETE FROM metrics WHERE id < 5 OR id = 201")

    assert problem(either) is not None
    assert missed(either) == 1
    assert either.value("SELECT count(*) FROM metrics WHERE id = 300") == 1


@pytest.mark.parametrize("repair", ["compare_chunks", "enable_sync"])
def test_a_mirror_can_be_compared_though_nothing_is_known_to_be_wrong(either: Sandbox, repair: str) -> None:
    either.run(
        f"UPDATE {either.shadow()} SET v = 'wrong' WHERE id = 7; DELETE FROM {either.shadow()} WHERE id = 9"
    )
    assert problem(either) is None
    before = missed(either)

    for _ in range(2):
        either.run("SELECT lakets.recheck_mirror('metrics', %s)", either.schema)
    assert missed(either) == before + 1
    assert problem(either) is not None
    either.run(f"SELECT lakets.{repair}('metrics', %s)", either.schema)

    assert either.mirror_difference() == []
    assert problem(either) is None


def test_the_mirror_of_a_rollup_can_be_compared(stage: Stage) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.run("SELECT lakets.enable_sync('hourly')")
    stage.run("UPDATE lakets_cdf._shadow_rollup_hourly SET total = 99")

    stage.run("SELECT lakets.recheck_mirror('hourly')")
    stage.refresh("hourly")

    assert stage.run("TABLE lakets_cdf._shadow_rollup_hourly EXCEPT TABLE _rollup_hourly") == []


@pytest.mark.parametrize("name", ["metrics", "hourly"])
def test_what_has_no_mirror_cannot_be_compared(stage: Stage, raises: Raises, name: str) -> None:
    stage.table()
    stage.rollup("hourly")

    with raises("P0001", match="has no mirror to compare"):
        stage.run("SELECT lakets.recheck_mirror(%s)", name)


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_syncing_again_gives_the_shadow_the_columns_and_rows_of_its_table(
    either: Sandbox, alteration: str
) -> None:
    either.run(ALTERATIONS[alteration])
    either.run("INSERT INTO metrics (id, ts) VALUES (200, '2024-01-02'); DELETE FROM metrics WHERE id = 7")

    either.sync()

    assert either.mirror_difference() == []
    assert problem(either) is None
    index = "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass"
    assert either.value(index, either.shadow()) == 1, "one for older columns would cost the writers"
    either.run("UPDATE metrics SET id = id + 1000; DELETE FROM metrics WHERE id % 2 = 0")
    either.run("INSERT INTO metrics (id, ts) VALUES (1, '2024-01-02')")
    assert either.mirror_difference() == []
    assert missed(either) == 0


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO metrics (id, ts) VALUES (1, '2024-01-09')", "DELETE FROM metrics", "TRUNCATE metrics"],
)
def test_what_a_warm_session_writes_after_a_column_went_is_noted(either: Sandbox, statement: str) -> None:
    for _ in range(8):  # plans are made and kept
        either.run(
            "INSERT INTO metrics (id, ts) VALUES (1000, '2024-01-09'); DELETE FROM metrics WHERE id = 1000"
        )
    either.run("ALTER TABLE metrics DROP COLUMN v")

    either.run(statement)

    assert missed(either) == 1


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE metrics DROP CONSTRAINT metrics_pkey",
        "ALTER TABLE metrics DROP CONSTRAINT metrics_pkey, ADD PRIMARY KEY (id, ts, v)",
    ],
    ids=["dropped", "wider"],
)
def test_another_key_is_noted_and_followed_after_syncing_again(db: Sandbox, change: str) -> None:
    mirror(db, "key")
    db.run("UPDATE metrics SET v = 'x' WHERE id = 1")
    db.run(change)

    db.run(
        "INSERT INTO metrics VALUES (1, '2024-01-02', 'twice'); UPDATE metrics SET v = v || '?' WHERE id = 1"
    )
    assert problem(db) is not None
    db.sync()

    db.run("UPDATE metrics SET v = v || '!' WHERE id = 1; DELETE FROM metrics WHERE v = 'twice?!'")
    assert db.mirror_difference() == []
    assert problem(db) is None


def test_a_key_that_came_later_is_used_after_syncing_again(db: Sandbox) -> None:
    mirror(db, "no key", None)
    db.run(FILL)
    db.run("ALTER TABLE metrics ADD PRIMARY KEY (id, ts)")
    db.run("UPDATE metrics SET v = 'x' WHERE id = 1")
    assert missed(db) == 0

    db.sync()

    db.run("UPDATE metrics SET v = 'y' WHERE id < 9; DELETE FROM metrics WHERE id = 2")
    assert db.mirror_difference() == []
    # Only with a key does an update stay an update.
    source = db.value("SELECT prosrc FROM pg_proc WHERE proname LIKE '\\_track\\_%\\_update'")
    assert "UPDATE ONLY lakets_cdf" in source


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE metrics DISABLE TRIGGER lakets_track_delete",
        "DROP TRIGGER lakets_track_delete ON metrics",
    ],
)
def test_a_trigger_that_is_off_is_told_and_put_back(either: Sandbox, damage: str) -> None:
    either.run(damage)
    either.run("DELETE FROM metrics WHERE id = 3")
    assert "trigger" in (problem(either) or "")

    either.sync()

    either.run("DELETE FROM metrics WHERE id = 4")
    assert either.mirror_difference() == []
    assert problem(either) is None


def test_syncing_again_when_all_is_well_changes_nothing(either: Sandbox) -> None:
    rows = f"SELECT ctid::text FROM {either.shadow()} ORDER BY 1"
    before = either.column(rows)
    logged = either.value("SELECT count(*) FROM lakets._change_log")

    either.sync()

    assert either.column(rows) == before
    assert either.value("SELECT count(*) FROM lakets._change_log") == logged


def test_a_repair_counts_as_a_change_of_everything(either: Sandbox) -> None:
    either.run("INSERT INTO lakets._mirror_gap VALUES (%s::regclass)", either.shadow())
    either.run("DELETE FROM lakets._change_log")

    either.sync()

    assert either.run("SELECT isfinite(min_time), isfinite(max_time) FROM lakets._change_log") == [
        (False, False)
    ]


def test_a_shadow_may_have_its_columns_in_another_order(either: Sandbox) -> None:
    either.run(
        f"ALTER TABLE {either.shadow()} RENAME COLUMN v TO was; ALTER TABLE {either.shadow()} ADD"
        f" COLUMN v text;"
        f" UPDATE {either.shadow()} SET v = was; ALTER TABLE {either.shadow()} DROP COLUMN was"
    )
    either.sync()

    either.run("UPDATE metrics SET v = 'x' WHERE id = 1; DELETE FROM metrics WHERE id = 2")
    either.run("INSERT INTO metrics (id, ts, v) VALUES (77, '2024-01-01', 'y')")

    assert either.mirror_difference() == []
    assert missed(either) == 0


def test_after_disabling_nothing_is_mirrored_and_all_is_logged(either: Sandbox) -> None:
    shadow = either.shadow()
    either.run("SELECT lakets.disable_sync('metrics', %s)", either.schema)
    assert either.value("SELECT to_regclass(%s)", shadow) is None
    logged = either.value("SELECT count(*) FROM lakets._change_log")

    either.run("UPDATE metrics SET v = 'x' WHERE ts = '2024-01-01'; TRUNCATE metrics")

    assert either.value("SELECT count(*) FROM lakets._change_log") == logged + 2


def test_a_rollup_is_mirrored_and_repaired_alike(db: Sandbox) -> None:
    mirror(db, "key")
    db.run(
        "SELECT lakets.create_rollup('daily', $$SELECT lakets.time_bucket('1 day', ts) AS bucket,"
        " count(*) AS n,"
        " max(v) AS top FROM public.metrics GROUP BY 1$$, '1 day'); SELECT lakets.enable_sync('daily')"
    )
    same = (
        "SELECT count(*) FROM (TABLE public._rollup_daily EXCEPT ALL TABLE"
        " lakets_cdf._shadow_rollup_daily) AS d"
    )
    db.run("DELETE FROM metrics WHERE id < 7; INSERT INTO metrics VALUES (99, '2024-01-03', 'z')")
    db.value("SELECT lakets.refresh_rollup('daily', true)")
    assert db.value(same) == 0
    db.run("DELETE FROM lakets_cdf._shadow_rollup_daily; UPDATE public._rollup_daily SET top = 'a'")
    assert missed(db) == 1

    db.run("SELECT lakets.enable_sync('daily')")

    assert (db.value(same), missed(db)) == (0, 0)


def test_a_refresh_brings_the_mirror_of_its_rollup_in_line(db: Sandbox) -> None:
    mirror(db, "key")
    db.run(
        "SELECT lakets.create_rollup('daily', $$SELECT lakets.time_bucket('1 day', ts) AS bucket,"
        " count(*) AS n FROM public.metrics GROUP BY 1$$, '1 day'); SELECT lakets.enable_sync('daily')"
    )
    table, shadow = "TABLE public._rollup_daily", "TABLE lakets_cdf._shadow_rollup_daily"
    held = db.value(f"SELECT count(*) FROM ({table}) AS t")
    # A row is missing, one is there twice, one is of nobody. The next change to the first makes
    # this known.
    db.run(
        "WITH gone AS (DELETE FROM lakets_cdf._shadow_rollup_daily"
        " WHERE bucket = (SELECT min(bucket) FROM public._rollup_daily))"
        " INSERT INTO lakets_cdf._shadow_rollup_daily SELECT bucket, n FROM public._rollup_daily"
        " WHERE bucket = (SELECT max(bucket) FROM public._rollup_daily) UNION ALL SELECT '2001-01-01', 1"
    )
    db.run("UPDATE public._rollup_daily SET n = n")
    assert missed(db) == 1

    assert db.value("SELECT lakets.refresh_rollup('daily', true)")

    assert missed(db) == 0
    assert db.value(f"SELECT count(*) FROM ({shadow}) AS s") == held > 2
    assert db.run(f"{table} EXCEPT ALL {shadow}") == []
    db.run("UPDATE public._rollup_daily SET n = n + 1")
    assert db.run(f"{table} EXCEPT ALL {shadow}") == []
