"""Writers of a mirrored table never block each other in the shadow, and it is right at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Gate, Session

    Sessions = Callable[[str], Session]
    Gates = Callable[..., Gate]

ONE_OF_THE_TWINS = "DELETE FROM metrics WHERE ctid = (SELECT {}(ctid) FROM metrics WHERE id = 7)"


def difference(stage: Stage) -> list[tuple[object, ...]]:
    return stage.run(
        "(SELECT 'table', * FROM metrics EXCEPT ALL SELECT 'table', * FROM"
        " lakets_cdf._shadow_metrics) UNION ALL"
        " (SELECT 'shadow', * FROM lakets_cdf._shadow_metrics EXCEPT ALL SELECT 'shadow', * FROM metrics)"
    )


def missed(stage: Stage) -> int:
    return int(stage.value("SELECT count(*) FROM lakets._mirror_gap"))


@pytest.fixture
def keyed(stage: Stage) -> Stage:
    stage.once(Stage.make_synced)
    return stage


@pytest.fixture
def keyless(stage: Stage) -> Stage:
    """Yield a stage with a mirrored table that has no key and holds one row twice."""
    stage.once(make_keyless)
    return stage


def make_keyless(stage: Stage) -> None:
    stage.table(keyed=False)
    stage.run("INSERT INTO metrics VALUES (7, '2024-01-01', 7), (7, '2024-01-01', 7)")
    stage.run("SELECT lakets.enable_sync('metrics')")


# delete/delete of rows that look the same: each must take a copy of its own, without waiting.
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_twins_deleted_by_two_sessions_both_go(keyless: Stage, sessions: Sessions, isolation: str) -> None:
    first, second = sessions("first"), sessions("second")
    first.begin(isolation)
    second.begin(isolation)

    first.run(ONE_OF_THE_TWINS.format("min"))
    second.run(ONE_OF_THE_TWINS.format("max"))
    second.commit()
    first.commit()

    assert difference(keyless) == []
    assert keyless.value("SELECT count(*) FROM lakets_cdf._shadow_metrics WHERE id = 7") == 0
    assert missed(keyless) == 0


# The same, but the first takes its delete back.
def test_a_twin_whose_delete_is_rolled_back_stays(keyless: Stage, sessions: Sessions) -> None:
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run(ONE_OF_THE_TWINS.format("min"))
    second.run(ONE_OF_THE_TWINS.format("max"))

    first.rollback()

    assert difference(keyless) == []
    assert keyless.value("SELECT count(*) FROM lakets_cdf._shadow_metrics WHERE id = 7") == 1


# update/delete of twins.
def test_one_twin_changes_while_the_other_goes(keyless: Stage, sessions: Sessions) -> None:
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run("UPDATE metrics SET value = 8 WHERE ctid = (SELECT min(ctid) FROM metrics WHERE id = 7)")
    second.run(ONE_OF_THE_TWINS.format("max"))
    first.commit()

    assert difference(keyless) == []
    assert keyless.column("SELECT value FROM lakets_cdf._shadow_metrics WHERE id = 7") == [8]


# insert/delete: a copy that is not committed yet is not taken for one's own.
def test_a_copy_on_its_way_in_is_left_alone(keyless: Stage, sessions: Sessions) -> None:
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run("INSERT INTO metrics VALUES (7, '2024-01-01', 7)")

    second.run("DELETE FROM metrics WHERE id = 7")
    first.commit()

    assert difference(keyless) == []
    assert keyless.value("SELECT count(*) FROM lakets_cdf._shadow_metrics WHERE id = 7") == 1


# update/update of one row: the second waits for the row itself, then finds the first's version in
# the shadow.
@pytest.mark.parametrize("table", ["keyed", "keyless"])
def test_a_row_changed_twice_in_turn_ends_as_the_last_left_it(
    table: str, request: pytest.FixtureRequest, sessions: Sessions
) -> None:
    stage = request.getfixturevalue(table)
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run("UPDATE metrics SET value = value + 10 WHERE id = 2")

    second.start("UPDATE metrics SET value = value + 100 WHERE id = 2")
    second.wait_blocked_by(first)
    first.commit()
    second.finish()

    assert difference(stage) == []
    assert stage.value("SELECT value FROM lakets_cdf._shadow_metrics WHERE id = 2") == 112
    assert missed(stage) == 0


# In REPEATABLE READ it is the table that refuses, not the shadow.
@pytest.mark.parametrize("table", ["keyed", "keyless"])
def test_a_row_changed_meanwhile_is_a_serialization_failure_as_without_us(
    table: str, request: pytest.FixtureRequest, sessions: Sessions
) -> None:
    stage = request.getfixturevalue(table)
    first, second = sessions("first"), sessions("second")
    second.begin("REPEATABLE READ")
    second.run("SELECT count(*) FROM metrics")
    first.run("UPDATE metrics SET value = 50 WHERE id = 2")

    with pytest.raises(psycopg.errors.SerializationFailure):
        second.run("UPDATE metrics SET value = 60 WHERE id = 2")
    second.rollback()
    second.begin("REPEATABLE READ")
    second.run("UPDATE metrics SET value = 60 WHERE id = 2")
    second.run("UPDATE metrics SET value = 70, at = '2024-01-04' WHERE id = 2")
    second.commit()

    assert difference(stage) == []


# Writers of different rows never wait for each other because of the shadow.
def test_writers_of_different_rows_do_not_meet(keyed: Stage, sessions: Sessions) -> None:
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run("UPDATE metrics SET value = 9 WHERE id = 1; DELETE FROM metrics WHERE id = 2")
    first.run("INSERT INTO metrics VALUES (10, '2024-01-01', 1)")

    second.run("UPDATE metrics SET value = 9 WHERE id = 3 AND at > '2024-01-02'")
    second.run("DELETE FROM metrics WHERE id = 4 AND at > '2024-01-02'")
    second.run("INSERT INTO metrics VALUES (11, '2024-01-01', 1)")
    first.commit()

    assert difference(keyed) == []


# enable/writer: rows before the copy are copied, rows after it are mirrored; there is no in
# between.
def test_no_row_slips_through_while_a_mirror_is_made(stage: Stage, sessions: Sessions) -> None:
    stage.table()
    before, enabler, after = sessions("before"), sessions("enabler"), sessions("after")
    before.begin()
    before.run("INSERT INTO metrics VALUES (10, '2024-01-01', 1)")
    enabler.start("SELECT lakets.enable_sync('metrics')")
    enabler.wait_blocked_by(before)
    after.start("INSERT INTO metrics VALUES (11, '2024-01-01', 1)")
    after.wait_blocked_by(enabler)
    before.commit()

    enabler.finish()
    after.finish()

    assert difference(stage) == []


# enable/enable: the second finds the first's shadow, instead of making another.
def test_a_mirror_is_made_once(stage: Stage, sessions: Sessions) -> None:
    stage.table()
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run("SELECT lakets.enable_sync('metrics')")

    second.start("SELECT lakets.enable_sync('metrics')")
    second.wait_blocked_by(first)
    first.commit()
    second.finish()

    assert stage.column(
        "SELECT relname FROM pg_class WHERE relnamespace = 'lakets_cdf'::regnamespace AND relkind = 'r'"
        " AND starts_with(relname::text, '_shadow_')"
    ) == ["_shadow_metrics"]
    stage.run("UPDATE metrics SET value = 0")
    assert difference(stage) == []


# disable/writer: a writer in flight still finds the shadow; the next does without.
def test_tables_of_one_name_synced_at_one_time_get_shadows_of_their_own(
    stage: Stage, sessions: Sessions
) -> None:
    stage.table()
    stage.run("CREATE SCHEMA other")
    stage.run("CREATE TABLE other.metrics (id integer, at timestamptz, value integer)")
    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '1 day', 'other')")
    first, second = sessions("first"), sessions("second")

    first.begin()
    first.run("SELECT lakets.enable_sync('metrics')")
    second.start("SELECT lakets.enable_sync('metrics', 'other')")
    second.wait_blocked_by(first)
    first.commit()
    second.finish()

    assert stage.value("SELECT count(DISTINCT shadow_table_name) FROM lakets._chronotable_registry") == 2


def test_a_mirror_is_dropped_when_its_writers_are_done(keyed: Stage, sessions: Sessions) -> None:
    writer, disabler = sessions("writer"), sessions("disabler")
    writer.begin()
    writer.run("UPDATE metrics SET value = 9")
    disabler.start("SELECT lakets.disable_sync('metrics')")
    disabler.wait_blocked_by(writer)
    writer.run("DELETE FROM metrics WHERE id = 1")
    writer.commit()

    disabler.finish()

    writer.run("DELETE FROM metrics WHERE id = 2")
    assert keyed.value("SELECT to_regclass('lakets_cdf._shadow_metrics')") is None


# repair/writer: what is written while the shadow is put right waits, and is mirrored.
def test_a_repair_and_a_writer_take_turns(keyed: Stage, sessions: Sessions) -> None:
    keyed.run("DELETE FROM lakets_cdf._shadow_metrics WHERE id = 3")
    keyed.run("UPDATE metrics SET value = value + 1")
    assert missed(keyed) == 1
    repairer, writer = sessions("repairer"), sessions("writer")
    repairer.begin()
    repairer.run("SELECT lakets.enable_sync('metrics')")

    writer.start("DELETE FROM metrics WHERE id = 4")
    writer.wait_blocked_by(repairer)
    repairer.commit()
    writer.finish()

    assert difference(keyed) == []
    assert missed(keyed) == 0


# alter/writer: a warm session that waited for the alteration must notice it. With an older snapshot
# it cannot, and is refused once: never is a row let through that the shadow has not.
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_column_dropped_while_a_writer_waits_is_noticed(
    keyed: Stage, sessions: Sessions, isolation: str
) -> None:
    writer, owner = sessions("writer"), sessions("owner")
    keyed.run("ALTER TABLE metrics ADD COLUMN extra int; SELECT lakets.enable_sync('metrics')")
    for n in range(7):  # its plans are made and kept
        writer.run("INSERT INTO metrics VALUES (%s, '2024-01-01', 1)", 100 + n)
    owner.begin()
    owner.run("ALTER TABLE metrics DROP COLUMN extra")
    insert = "INSERT INTO metrics (id, at) VALUES (200, '2024-01-01')"

    writer.begin(isolation)
    writer.start(insert)
    writer.wait_blocked_by(owner)
    owner.commit()
    if isolation == "REPEATABLE READ":
        with pytest.raises(psycopg.errors.UndefinedColumn):
            writer.finish()
        writer.rollback()
        writer.run(insert)
    else:
        writer.finish()
        writer.commit()

    assert missed(keyed) == 1
    keyed.run("SELECT lakets.enable_sync('metrics'); INSERT INTO metrics (id, at) VALUES (201, '2024-01-01')")
    shadowed = keyed.value("SELECT count(*) FROM lakets_cdf._shadow_metrics")
    assert shadowed == keyed.value("SELECT count(*) FROM metrics")


SWALLOW = """
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER odd BEFORE INSERT ON lakets_cdf._shadow_metrics FOR EACH ROW EXECUTE FUNCTION swallow()
"""


# A writer is in the middle of its statement; another session puts a trigger on the shadow and, when
# the writer is done, drops it again. Whether the writer's plans are new or kept, it has seen it.
@pytest.mark.parametrize("is_warm", [False, True], ids=["new plans", "kept plans"])
def test_a_trigger_that_appears_on_the_shadow_during_a_statement_is_noted(
    keyed: Stage, sessions: Sessions, gates_at_rows: Gates, is_warm: bool
) -> None:
    writer, other = sessions("writer"), sessions("other")
    if is_warm:
        for number in range(10, 20):
            writer.run("INSERT INTO metrics VALUES (%s, '2024-01-01', 7)", number)
    gate = gates_at_rows(writer, "metrics", "AFTER INSERT")
    writer.start("INSERT INTO metrics VALUES (7, '2024-01-01', 7)")
    writer.wait_for_event("advisory")
    other.run(SWALLOW)
    gate.open()
    writer.finish()
    other.run("DROP TRIGGER odd ON lakets_cdf._shadow_metrics")

    assert missed(keyed) == 1


# The same, while a warm session writes before, meanwhile and after: only meanwhile is a gap noted.
def test_a_trigger_on_the_shadow_is_noted_only_while_it_is_there(keyed: Stage, sessions: Sessions) -> None:
    writer, other = sessions("writer"), sessions("other")
    for number in range(10, 20):
        writer.run("INSERT INTO metrics VALUES (%s, '2024-01-01', 7)", number)
    assert missed(keyed) == 0

    other.run(SWALLOW)
    writer.run("INSERT INTO metrics VALUES (20, '2024-01-01', 7)")
    assert missed(keyed) == 1

    other.run("DROP TRIGGER odd ON lakets_cdf._shadow_metrics; DELETE FROM lakets._mirror_gap")
    writer.run("INSERT INTO metrics VALUES (21, '2024-01-01', 7)")
    assert missed(keyed) == 0
    assert keyed.value("SELECT count(*) FROM lakets_cdf._shadow_metrics WHERE id = 21") == 1
