"""A refresh with nothing to do is short, but checks its preconditions and records its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.stage import Raises, Stage

CHANGES = {
    "source replaced": (
        "ALTER TABLE metrics RENAME TO mine; CREATE TABLE metrics (LIKE mine INCLUDING ALL)",
        "metrics is not the ChronoTable that it was",
    ),
    "source made again": (
        "CREATE TABLE copy (LIKE metrics INCLUDING ALL); DROP TABLE metrics;"
        "ALTER TABLE copy RENAME TO metrics",
        "metrics is not the ChronoTable that it was",
    ),
    "source dropped": ("DROP TABLE metrics", "no longer exists"),
    "lower RollUp replaced": (
        "ALTER TABLE _rollup_hourly RENAME TO mine; CREATE TABLE _rollup_hourly (LIKE mine INCLUDING ALL)",
        "public._rollup_hourly is another one",
    ),
}


@pytest.fixture
def idle(stage: Stage) -> Stage:
    stage.once(make_idle)
    return stage


def make_idle(stage: Stage) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.rollup("daily", reads="hourly", every="1 day")
    stage.cascade()


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_replaced_is_noticed_though_nothing_was_written(
    idle: Stage, raises: Raises, change: str
) -> None:
    statements, found = CHANGES[change]
    idle.run(statements)

    with raises("P0001", match=found):
        idle.refresh("daily" if "lower" in change else "hourly")


def test_a_new_type_is_taken_in_though_nothing_was_written(idle: Stage) -> None:
    idle.run("ALTER TABLE metrics ALTER value TYPE smallint USING value * 2")

    assert idle.refresh("hourly")
    assert idle.difference("hourly") == []


def test_it_notes_how_far_it_came(idle: Stage) -> None:
    noted = (
        "SELECT last_refreshed_at, pg_snapshot_xmax(absorbed)::text::bigint"
        " FROM lakets._rollup_registry WHERE name = 'hourly'"
    )
    before = idle.run(noted)[0]
    idle.run("CREATE TABLE elsewhere ()")

    assert idle.refresh("hourly")
    after = idle.run(noted)[0]
    assert after[0] > before[0]
    assert after[1] > before[1]


def test_it_lets_go_of_changes_that_were_wanted_when_they_were_absorbed(idle: Stage) -> None:
    with psycopg.connect(idle.conninfo) as other:
        other.execute("SELECT pg_current_xact_id()")  # still running: what comes later may be wanted again
        idle.run("DO $$ BEGIN FOR day IN 1 .. 150 LOOP UPDATE metrics SET value = day; END LOOP; END $$")
        idle.cascade()
        assert idle.value("SELECT count(*) FROM lakets._change_log") >= 150

    idle.cascade()

    assert idle.value("SELECT count(*) FROM lakets._change_log") == 0


def test_changes_in_a_younger_cluster_are_taken_in_whenever_the_first_refresh_comes(idle: Stage) -> None:
    """Let the transaction ids reach those that the restored RollUp has absorbed."""
    idle.run(
        "UPDATE lakets._rollup_registry"
        "   SET cluster = 'another/1', absorbed = format('%s:%s:', new.xid, new.xid)::pg_snapshot"
        "  FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 50) AS new (xid)"
    )
    idle.run("UPDATE metrics SET value = 7")
    for _ in range(60):
        idle.run("SELECT pg_current_xact_id()")

    idle.cascade()

    assert idle.difference("hourly") == idle.difference("daily") == []
