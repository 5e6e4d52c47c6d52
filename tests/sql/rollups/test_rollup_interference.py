"""Somebody puts on the table of a RollUp what discards or changes its rows: it is not refreshed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import Raises, Stage

FUNCTIONS = """
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION alter() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.total := 999; RETURN NEW; END $$;
"""
TRIGGER = "CREATE TRIGGER odd BEFORE {} ON _rollup_hourly FOR EACH ROW EXECUTE FUNCTION {}()"
# How it is put there, how it is removed, and its name in the message.
THINGS = {
    "swallows": (TRIGGER.format("INSERT", "swallow"), "DROP TRIGGER odd ON _rollup_hourly", "trigger odd"),
    "keeps": (TRIGGER.format("DELETE", "swallow"), "DROP TRIGGER odd ON _rollup_hourly", "trigger odd"),
    "alters": (TRIGGER.format("INSERT", "alter"), "DROP TRIGGER odd ON _rollup_hourly", "trigger odd"),
    "rule": (
        "CREATE RULE odd AS ON INSERT TO _rollup_hourly DO INSTEAD NOTHING",
        "DROP RULE odd ON _rollup_hourly",
        "rule odd",
    ),
    "policy": (
        "ALTER TABLE _rollup_hourly ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "ALTER TABLE _rollup_hourly NO FORCE ROW LEVEL SECURITY",
        "forced row level security",
    ),
    "unlogged": (
        "ALTER TABLE _rollup_hourly SET UNLOGGED",
        "ALTER TABLE _rollup_hourly SET LOGGED",
        "a crash, since it is UNLOGGED",
    ),
}


@pytest.mark.parametrize("thing", THINGS)
def test_refresh_refuses_and_changes_nothing_until_it_is_gone(
    stage: Stage, raises: Raises, thing: str
) -> None:
    put, remove, name = THINGS[thing]
    stage.table()
    stage.rollup("hourly")
    stage.rollup("daily", reads="hourly", every="1 day")
    stage.run(FUNCTIONS)
    before = stage.totals("hourly")
    stage.run(put)
    stage.run("INSERT INTO metrics VALUES (70, %s, 70), (71, %s, 71)", stage.at(1, 12), stage.at(1, 13))

    with raises("P0001", match=f"cannot write to public._rollup_hourly: .* by {name}"):
        stage.refresh("hourly")
    assert stage.cascade() == {"hourly": False, "daily": False}
    assert stage.totals("hourly") == before

    stage.run(remove)
    assert stage.cascade() == {"hourly": True, "daily": True}
    assert [stage.difference(name) for name in ("hourly", "daily")] == [[], []]


@pytest.mark.parametrize("event", ["INSERT", "DELETE"])
def test_triggers_that_change_no_row_of_the_rollup_may_stay(stage: Stage, event: str) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.sync("hourly")
    stage.run(FUNCTIONS)
    stage.run(f"CREATE TRIGGER a AFTER {event} ON _rollup_hourly FOR EACH ROW EXECUTE FUNCTION swallow()")
    stage.run(f"CREATE TRIGGER b BEFORE {event} ON _rollup_hourly EXECUTE FUNCTION swallow()")
    stage.run("INSERT INTO metrics VALUES (70, %s, 70)", stage.at(1, 12))

    stage.refresh("hourly")

    assert stage.difference("hourly") == []


def test_mirror_of_a_rollup_is_repaired_by_a_refresh_once_it_stores_all_rows(
    stage: Stage, raises: Raises
) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.sync("hourly")
    stage.run(FUNCTIONS)
    shadow = "lakets_cdf._shadow_rollup_hourly"
    stage.run(f"CREATE TRIGGER odd BEFORE INSERT ON {shadow} FOR EACH ROW EXECUTE FUNCTION swallow()")
    stage.run("INSERT INTO metrics VALUES (70, %s, 70)", stage.at(1, 12))
    for _ in range(2):
        assert stage.refresh("hourly")
    assert stage.difference("hourly") == []
    assert "may lack changes" in stage.value("SELECT problem FROM lakets.pending_repairs()")
    with raises("P0001", match=f"cannot write to {shadow}: .* by trigger odd"):
        stage.run("SELECT lakets.enable_sync('hourly')")

    stage.run(f"DROP TRIGGER odd ON {shadow}")
    stage.refresh("hourly")

    assert stage.run(f"TABLE {shadow} EXCEPT ALL TABLE _rollup_hourly") == []
    assert stage.run(f"TABLE _rollup_hourly EXCEPT ALL TABLE {shadow}") == []
    assert stage.run("SELECT * FROM lakets.pending_repairs()") == []


def test_a_tool_that_puts_a_trigger_on_every_new_table_is_found_when_a_rollup_is_made(
    stage: Stage, raises: Raises
) -> None:
    stage.table()
    stage.run(FUNCTIONS)
    stage.run(
        "CREATE FUNCTION hang() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN"
        " FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' LOOP EXECUTE"
        " format('CREATE TRIGGER odd BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION public.swallow()',"
        " r.objid::regclass); END LOOP; END $$;"
        " CREATE EVENT TRIGGER hang ON ddl_command_end WHEN TAG IN ('CREATE TABLE AS')"
        " EXECUTE FUNCTION hang()"
    )

    with raises("P0001", match="cannot write to public._rollup_hourly: .* by trigger odd"):
        stage.rollup("hourly")
