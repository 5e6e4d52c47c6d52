"""Somebody puts on a shadow what discards or changes rows that are written to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.sql.mirror.scene import missed

if TYPE_CHECKING:
    from tests.sandbox import Sandbox
    from tests.stage import Raises, Stage

CANDIDATES = "SELECT chunk_name FROM lakets._get_chunks_to_tier('metrics')"
RETAIN = "SELECT lakets.execute_retention('metrics')"
FUNCTIONS = """
CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION public.alter() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW := jsonb_populate_record(NEW, '{"v": "altered", "value": 999}'); RETURN NEW; END $$;
"""
DROP = "DROP TRIGGER odd ON {shadow}"
BEFORE = "CREATE TRIGGER odd BEFORE {} ON {{shadow}} FOR EACH ROW EXECUTE FUNCTION public.{}()"


class Thing(NamedTuple):
    """What is put on a shadow, how it is removed, and how a message names it."""

    put: str
    remove: str
    name: str


THINGS = {
    "swallows": Thing(BEFORE.format("INSERT", "swallow"), DROP, "trigger odd"),
    "swallows changes": Thing(BEFORE.format("INSERT OR UPDATE OR DELETE", "swallow"), DROP, "trigger odd"),
    "alters": Thing(BEFORE.format("INSERT OR UPDATE", "alter"), DROP, "trigger odd"),
    "rule": Thing(
        "CREATE RULE odd AS ON INSERT TO {shadow} DO INSTEAD NOTHING",
        "DROP RULE odd ON {shadow}",
        "rule odd",
    ),
    "rule on delete": Thing(
        "CREATE RULE odd AS ON DELETE TO {shadow} DO INSTEAD NOTHING",
        "DROP RULE odd ON {shadow}",
        "rule odd",
    ),
    "policy": Thing(
        "ALTER TABLE {shadow} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "ALTER TABLE {shadow} NO FORCE ROW LEVEL SECURITY",
        "forced row level security",
    ),
    "unlogged": Thing(
        "ALTER TABLE {shadow} SET UNLOGGED",
        "ALTER TABLE {shadow} SET LOGGED",
        "a crash, since it is UNLOGGED",
    ),
}
HARMLESS = {
    "child with the same rows": (
        "CREATE TABLE odd () INHERITS ({shadow});"
        " INSERT INTO odd (id, ts, v) SELECT id, ts, v FROM ONLY {shadow}"
    ),
    "after trigger": (
        "CREATE TRIGGER fine AFTER INSERT ON {shadow} FOR EACH ROW EXECUTE FUNCTION public.swallow()"
    ),
    "statement trigger": "CREATE TRIGGER fine BEFORE INSERT ON {shadow} EXECUTE FUNCTION public.swallow()",
    "disabled": BEFORE.format("INSERT", "swallow") + "; ALTER TABLE {shadow} DISABLE TRIGGER odd",
    "dropped": BEFORE.format("INSERT", "swallow") + "; DROP TRIGGER odd ON {shadow}",
    "unforced policy": "ALTER TABLE {shadow} ENABLE ROW LEVEL SECURITY",
    "foreign key": "CREATE TABLE u (id int PRIMARY KEY); ALTER TABLE {shadow} ADD COLUMN u int REFERENCES u",
}
WRITES = {
    "insert": "INSERT INTO metrics (id, ts, v) VALUES (60, '2024-01-02', 'x')",
    "insert many": (
        "INSERT INTO metrics (id, ts, v) SELECT n, '2024-01-02', 'x' FROM generate_series(61, 70) AS n"
    ),
    "update": "UPDATE metrics SET v = 'changed' WHERE id < 5",
    "move": "UPDATE metrics SET id = id + 100 WHERE id < 5",
    "delete": "DELETE FROM metrics WHERE id < 5",
    "truncate": "TRUNCATE metrics",
}


# Each thing with one write, and each write with one thing.
PAIRS = [
    *((thing, "insert") for thing in THINGS),
    *(("swallows changes", write) for write in WRITES if write != "insert"),
    ("rule on delete", "delete"),
]


@pytest.mark.parametrize(("thing", "write"), PAIRS)
def test_a_write_that_the_shadow_may_not_store_succeeds_and_is_noted(
    either: Sandbox, thing: str, write: str
) -> None:
    shadow = either.shadow()
    either.run(FUNCTIONS)
    for _ in range(3):  # plans are made and kept
        either.run("INSERT INTO metrics (id, ts, v) VALUES (50, '2024-01-02', 'x')")
        either.run("UPDATE metrics SET v = 'y' WHERE id = 50; DELETE FROM metrics WHERE id = 50")
    either.run(THINGS[thing].put.format(shadow=shadow))

    either.run(WRITES[write])

    assert missed(either) == 1
    with either.refused("raise_exception", match=f"cannot write to .*: .* by {THINGS[thing].name}"):
        either.sync()
    either.run(THINGS[thing].remove.format(shadow=shadow))
    either.sync()
    assert either.mirror_difference() == []
    assert missed(either) == 0
    either.run("INSERT INTO metrics (id, ts, v) VALUES (80, '2024-01-02', 'x')")
    assert either.mirror_difference() == []
    assert missed(either) == 0


@pytest.mark.parametrize("thing", HARMLESS)
def test_what_changes_no_row_of_the_shadow_is_left_alone(either: Sandbox, thing: str) -> None:
    either.run(FUNCTIONS)
    either.run(HARMLESS[thing].format(shadow=either.shadow()))

    for write in list(WRITES.values())[:-1]:
        either.run(write)

    assert missed(either) == 0
    either.run("DROP TABLE IF EXISTS odd")
    assert either.mirror_difference() == []
    either.run("TRUNCATE metrics")
    assert either.mirror_difference() == []
    either.sync()


# The feed of these tests has a publication, for which Postgres itself refuses an UNLOGGED table.
@pytest.mark.parametrize("thing", sorted(THINGS.keys() - {"unlogged"}))
def test_nothing_is_proved_or_dropped_until_it_is_gone_and_all_is_compared(stage: Stage, thing: str) -> None:
    feed = stage.synced()
    stage.run(FUNCTIONS)
    shadow = "lakets_cdf._shadow_metrics"
    stage.run(THINGS[thing].put.format(shadow=shadow))
    stage.run("INSERT INTO metrics VALUES (70, %s, 70)", stage.at(1, 13))
    for _ in range(3):
        stage.column(CANDIDATES)
        assert [stage.tier(day) for day in range(1, 5)] == [False] * 4
        assert stage.value("SELECT lakets.compare_chunks('metrics')") == 0
        assert stage.value(RETAIN) == 0
        feed.flush()
    (blocked,) = set(stage.column("SELECT blocked_by FROM lakets.retention_report('metrics')"))
    assert blocked == (
        f"not durable: rows written to {shadow} can be discarded or changed by {THINGS[thing].name};"
        " remove that, and the next tiering run or lakets.enable_sync compares the rows"
    )
    repair = stage.value("SELECT problem FROM lakets.pending_repairs()")
    assert repair.replace("its mirror: ", "not durable: ") == blocked

    stage.run(THINGS[thing].remove.format(shadow=shadow))
    for _ in range(9):
        stage.value(RETAIN)
        feed.flush()

    assert set(stage.statuses().values()) == {"dropped"}
    assert stage.column(f"SELECT value FROM {shadow} ORDER BY 1") == [1, 2, 3, 4, 70]


@pytest.mark.parametrize("thing", ["swallows", "alters", "rule"])
def test_a_job_notes_it_even_if_nobody_writes_meanwhile(stage: Stage, thing: str) -> None:
    feed = stage.synced()
    stage.run(FUNCTIONS)
    shadow = "lakets_cdf._shadow_metrics"
    stage.run(THINGS[thing].put.format(shadow=shadow))

    stage.column(CANDIDATES)

    stage.run(THINGS[thing].remove.format(shadow=shadow))
    assert "may lack changes" in stage.value("SELECT lakets.explain_durability(%s)", stage.chunk(1))
    feed.flush()


def test_a_comparison_that_has_begun_begins_again(stage: Stage) -> None:
    feed = stage.synced()
    stage.run(FUNCTIONS)
    shadow = "lakets_cdf._shadow_metrics"
    stage.run(f"DELETE FROM {shadow}; INSERT INTO lakets._mirror_gap VALUES ('{shadow}')")
    stage.column(CANDIDATES)
    stage.run(THINGS["swallows"].put.format(shadow=shadow))

    assert not stage.tier(1)

    stage.run(THINGS["swallows"].remove.format(shadow=shadow))
    assert not stage.tier(2)
    for _ in range(9):
        stage.value(RETAIN)
        feed.flush()
    assert set(stage.statuses().values()) == {"dropped"}
    assert stage.column(f"SELECT value FROM {shadow} ORDER BY 1") == [1, 2, 3, 4]


def test_no_fence_is_set_where_it_would_change_a_row(stage: Stage) -> None:
    stage.synced()
    stage.run(FUNCTIONS)
    stage.run(THINGS["alters"].put.format(shadow="lakets_cdf._shadow_metrics"))
    stage.run("INSERT INTO metrics VALUES (70, %s, 70)", stage.at(1, 13))

    stage.tier(1)

    assert stage.column("SELECT value FROM lakets_cdf._shadow_metrics ORDER BY 1") == [1, 2, 3, 4]


@pytest.mark.parametrize("table", ["lakets_cdf._shadow_metrics", "lakets_cdf._trim_log"])
def test_nothing_is_trimmed_that_would_not_be_logged(stage: Stage, table: str) -> None:
    feed = stage.synced()
    stage.run(FUNCTIONS)
    stage.run("SELECT lakets.remove_retention_policy('metrics')")
    stage.run(
        "SELECT lakets.add_tiered_retention_policy('metrics', '1 day', '2 days', p_trim_shadow => true)"
    )
    stage.run(
        "INSERT INTO wal2delta.tables VALUES ('lakets_cdf._trim_log'::regclass, 'STREAMING', '0/0', now())"
    )
    feed.flush()
    assert stage.value(RETAIN) == 4
    stage.run(THINGS["swallows"].put.format(shadow=table))

    assert stage.value("SELECT lakets.trim_shadow('metrics')") == 0
    assert "trigger odd" in stage.value("SELECT blocked_by FROM lakets.trim_report('metrics') LIMIT 1")
    stage.run(THINGS["swallows"].remove.format(shadow=table))


def test_a_tool_that_puts_a_trigger_on_every_new_table_is_found_at_once(stage: Stage, raises: Raises) -> None:
    stage.table()
    stage.run(FUNCTIONS)
    stage.run(
        "CREATE FUNCTION hang() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN"
        " FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' LOOP EXECUTE"
        " format('CREATE TRIGGER odd BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION public.swallow()',"
        " r.objid::regclass); END LOOP; END $$;"
        " CREATE EVENT TRIGGER hang ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS')"
        " EXECUTE FUNCTION hang()"
    )

    with raises("P0001", match="cannot write to lakets_cdf._shadow_metrics: .* by trigger odd"):
        stage.run("SELECT lakets.enable_sync('metrics')")
