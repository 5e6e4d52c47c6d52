"""Writers of a cached table meet in the cache: all continue, and the newest row wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Session
    from tests.stage import Stage

    Sessions = Callable[[str], Session]

ENABLE = "SELECT lakets.enable_lvc('metrics', '{id}', '{value}')"
DISABLE = "SELECT lakets.disable_lvc('metrics')"
INSERT = "INSERT INTO metrics VALUES (%s, '2024-01-01 12:00+00'::timestamptz + %s * interval '1 minute', %s)"
IN_ORDER = "INSERT INTO metrics SELECT n, '2024-01-01 13:00+00', {} FROM generate_series({}, {}, {}) AS n"


@pytest.fixture
def cached(stage: Stage) -> Stage:
    stage.once(make_cached)
    return stage


def make_cached(stage: Stage) -> None:
    stage.table(keyed=False, rows=False)
    stage.run(ENABLE)


def cache(stage: Stage) -> dict[int, int]:
    return dict(stage.run("SELECT id, value FROM _lvc_metrics"))


# upsert/upsert, in opposite orders of the rows: a third session keeps both at the row in the
# middle, so that each has locked all that it may before it.
def test_statements_in_opposite_orders_do_not_deadlock(cached: Stage, sessions: Sessions) -> None:
    cached.run(IN_ORDER.format(0, 1, 9, 1))
    gate, first, second = sessions("gate"), sessions("first"), sessions("second")
    gate.begin()
    gate.run(INSERT, 5, 61, 0)

    first.start(IN_ORDER.format(1, 1, 9, 1))
    first.wait_blocked_by(gate)
    second.start(IN_ORDER.format(2, 9, 1, -1))
    second.wait_blocked_by(first)
    gate.rollback()

    first.finish()
    second.finish()
    assert cache(cached) == dict.fromkeys(range(1, 10), 2)


# The same with keys that are not there yet: each waits for the other's insert of a key.
def test_new_keys_in_opposite_orders_do_not_deadlock(cached: Stage, sessions: Sessions) -> None:
    gate, first, second = sessions("gate"), sessions("first"), sessions("second")
    gate.begin()
    gate.run(INSERT, 5, 0, 0)

    first.start(IN_ORDER.format(1, 1, 9, 1))
    first.wait_blocked_by(gate)
    second.start(IN_ORDER.format(2, 9, 1, -1))
    second.wait_blocked_by(first)
    gate.commit()

    first.finish()
    second.finish()
    assert cache(cached) == dict.fromkeys(range(1, 10), 2)


# upsert/upsert of one key: the newer row is written first and commits first, or last.
@pytest.mark.parametrize("first_minute", [5, 9], ids=["newer waits", "older waits"])
@pytest.mark.parametrize("exists", [True, False], ids=["known key", "new key"])
def test_the_newer_row_wins_whoever_commits_last(
    cached: Stage, sessions: Sessions, first_minute: int, exists: bool
) -> None:
    if exists:
        cached.run(INSERT, 1, 0, 0)
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run(INSERT, 1, first_minute, first_minute)

    second.start(INSERT, 1, 14 - first_minute, 14 - first_minute)
    second.wait_blocked_by(first)
    first.commit()
    second.finish()

    assert cache(cached) == {1: 9}


# upsert/rollback: what is taken back does not count.
def test_a_newer_row_that_is_rolled_back_leaves_the_older_one(cached: Stage, sessions: Sessions) -> None:
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run(INSERT, 1, 9, 9)

    second.start(INSERT, 1, 5, 5)
    second.wait_blocked_by(first)
    first.rollback()
    second.finish()

    assert cache(cached) == {1: 5}


# upsert/upsert of different keys: nobody waits.
def test_writers_of_different_keys_do_not_meet(cached: Stage, sessions: Sessions) -> None:
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run(INSERT, 1, 0, 1)
    second.run(INSERT, 2, 0, 2)
    first.commit()

    assert cache(cached) == {1: 1, 2: 2}


# enable/write: a writer that began before is waited for, and its rows are loaded.
def test_enabling_waits_for_an_open_writer_and_loses_nothing(stage: Stage, sessions: Sessions) -> None:
    stage.table(keyed=False, rows=False)
    writer, enabler, late = sessions("writer"), sessions("enabler"), sessions("late")
    writer.begin()
    writer.run(INSERT, 1, 5, 5)

    enabler.start(ENABLE)
    enabler.wait_blocked_by(writer)
    late.start(INSERT, 2, 6, 6)
    late.wait_blocked_by(enabler)
    writer.run(INSERT, 1, 7, 7)
    writer.commit()

    enabler.finish()
    late.finish()
    assert cache(stage) == {1: 7, 2: 6}


# enable/enable: the second finds the cache of the first.
def test_the_second_to_enable_is_told(stage: Stage, sessions: Sessions) -> None:
    stage.table(keyed=False)
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run(ENABLE)

    second.start(ENABLE)
    second.wait_blocked_by(first)
    first.commit()

    with pytest.raises(psycopg.errors.RaiseException, match="already enabled"):
        second.finish()


# disable/write: a writer waits for the end of the cache and goes on without it.
def test_a_writer_goes_on_when_the_cache_is_gone(cached: Stage, sessions: Sessions) -> None:
    disabler, writer = sessions("disabler"), sessions("writer")
    disabler.begin()
    disabler.run(DISABLE)

    writer.start(INSERT, 1, 0, 1)
    writer.wait_blocked_by(disabler)
    disabler.commit()

    writer.finish()
    assert cached.value("SELECT count(*) FROM metrics") == 1
    assert cached.value("SELECT to_regclass('_lvc_metrics')") is None


# write/disable: the cache goes when the writer is done.
def test_disabling_waits_for_an_open_writer(cached: Stage, sessions: Sessions) -> None:
    writer, disabler = sessions("writer"), sessions("disabler")
    writer.begin()
    writer.run(INSERT, 1, 0, 1)

    disabler.start(DISABLE)
    disabler.wait_blocked_by(writer)
    writer.commit()

    disabler.finish()
    assert cached.value("SELECT to_regclass('_lvc_metrics')") is None


# rename/write: the writer planned its statement before the column was renamed.
def test_a_column_renamed_under_a_session_stops_no_writer(cached: Stage, sessions: Sessions) -> None:
    writer = sessions("writer")
    for value in range(6):
        writer.run(INSERT, 1, value, value)
    cached.run("ALTER TABLE metrics RENAME value TO reading")

    writer.run(INSERT, 1, 9, 9)

    assert cached.value("SELECT count(*) FROM metrics") == 7
    assert any("is emptied" in notice for notice in writer.notices)
    assert cache(cached) == {}
    cached.run("ALTER TABLE metrics RENAME reading TO value")
    writer.run(INSERT, 1, 10, 10)
    assert cache(cached) == {1: 10}


# rename/write with an old snapshot, which still shows the table as it was: Postgres fails the
# transaction, as when a mirrored table changes under one. Made again, it goes on.
def test_a_column_renamed_under_an_old_snapshot_fails_that_transaction_only(
    cached: Stage, sessions: Sessions
) -> None:
    writer = sessions("writer")
    writer.run(INSERT, 1, 0, 0)
    writer.begin("REPEATABLE READ")
    writer.run("SELECT count(*) FROM lakets._chronotable_registry")
    cached.run("ALTER TABLE metrics RENAME value TO reading")

    with pytest.raises(psycopg.errors.UndefinedColumn):
        writer.run(INSERT, 1, 9, 9)
    writer.rollback()
    writer.run(INSERT, 1, 9, 9)

    assert cached.value("SELECT count(*) FROM metrics") == 2
    assert cache(cached) == {}
