"""Chunks are created beside all others: short waits, no lost row, no chunk twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Gate, Session
    from tests.stage import Stage

    Sessions = Callable[[str], Session]

RANGE = (
    "SELECT lakets._ensure_partitions(id, p_range_start => '2024-02-01+00', p_range_end => '2024-02-04+00')"
    " FROM lakets._chronotable_registry"
)
DROP = "SELECT lakets.drop_chronotable('metrics')"
WRITE = "INSERT INTO metrics VALUES (100, '2024-01-01 01:00+00', 100)"
READ = "SELECT count(*) FROM metrics"
CANDIDATES = "SELECT count(*) FROM lakets._get_chunks_to_tier('metrics')"
TIER = "SELECT lakets.tier_chunk('public.metrics_20240103_000000')"
RETAIN = "SELECT lakets.execute_retention('metrics')"
REFRESH = "SELECT lakets.refresh_rollup('hourly', true)"
REFRESH_TOP = "SELECT lakets.refresh_rollup('daily', true)"

# What there is of ChronoTables and RollUps, by kind or name.
LEFT = """
SELECT relname::text FROM pg_class
 WHERE relnamespace::regnamespace::text IN ('public', 'lakets_cdf') AND relname ~ '(metrics|hourly|daily)'
UNION ALL SELECT proname::text FROM pg_proc WHERE proname ~ '^_track_(rollup_)?[0-9]'
UNION ALL SELECT chunk_name FROM lakets._chunk_metadata
UNION ALL SELECT policy_type FROM lakets._policy_registry
UNION ALL SELECT table_name FROM lakets._chronotable_registry
UNION ALL SELECT name FROM lakets._rollup_registry
UNION ALL SELECT 'dirty bucket' FROM lakets._rollup_invalidation_log
UNION ALL SELECT 'logged change' FROM lakets._change_log
UNION ALL SELECT 'proof' FROM lakets._feed_proof
UNION ALL SELECT 'gap' FROM lakets._mirror_gap
"""


def count(stage: Stage, table: str = "metrics") -> int:
    return int(stage.value(f"SELECT count(*) FROM {table}"))


# ensure/ensure: the second sees what is missing, waits, and must look again.
def test_the_second_of_two_makers_finds_nothing_left_to_make(stage: Stage, sessions: Sessions) -> None:
    stage.table()
    first, second = sessions("first"), sessions("second")

    first.begin()
    assert first.value(RANGE) == 3
    second.start(RANGE)
    second.wait_blocked_by(first)
    first.commit()

    assert second.finish() == [(0,)]
    assert (
        stage.value(
            "SELECT count(*) FROM lakets._chunk_metadata WHERE range_start >= '2024-02-01+00' AND"
            " range_start < '2024-02-04+00'"
        )
        == 3
    )


# ensure/ensure in a circle: the second reads the default partition, which the first will lock, and
# waits.
def test_the_second_of_two_makers_holds_nothing_that_the_first_will_lock(
    stage: Stage, sessions: Sessions
) -> None:
    stage.table()
    first, second = sessions("first"), sessions("second")

    first.begin()
    first.run("SELECT lakets._lock_maintenance('metrics')")
    second.start(RANGE)
    second.wait_blocked_by(first)
    first.run("LOCK TABLE metrics_default IN ACCESS EXCLUSIVE MODE NOWAIT")
    first.commit()

    assert second.finish() == [(3,)]


# ensure/ensure, the first of which does not come through.
def test_the_second_of_two_makers_makes_what_the_first_rolled_back(stage: Stage, sessions: Sessions) -> None:
    stage.table()
    first, second = sessions("first"), sessions("second")

    first.begin()
    first.run(RANGE)
    second.start(RANGE)
    second.wait_blocked_by(first)
    first.rollback()

    assert second.finish() == [(3,)]


def test_makers_of_two_tables_do_not_meet(stage: Stage, sessions: Sessions) -> None:
    stage.table("one")
    stage.table("two")
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run(f"{RANGE} WHERE table_name = 'one'")

    assert second.run(f"{RANGE} WHERE table_name = 'two'") == [(3,)]


# ensure/writer: a writer of one chunk and the maker of another have nothing to do with each other.
def test_a_maker_does_not_wait_for_writers_nor_they_for_it(stage: Stage, sessions: Sessions) -> None:
    stage.table()
    maker, before, after = sessions("maker"), sessions("before"), sessions("after")
    before.begin()
    before.run("INSERT INTO metrics VALUES (100, '2024-01-01', 1)")
    maker.begin()

    maker.run(RANGE)
    after.run("INSERT INTO metrics VALUES (101, '2024-01-01', 1)")
    after.run("UPDATE metrics SET value = 2 WHERE id = 101 AND at = '2024-01-01'")
    maker.commit()
    before.commit()

    assert count(stage) == 6


# ensure/writer of another table: a chunk of a table that refers to it locks it, and the wait for
# that must not be spent with the whole ChronoTable in hand.
def test_a_maker_that_waits_for_a_referenced_table_holds_no_reader_up(
    stage: Stage, sessions: Sessions
) -> None:
    stage.table()
    stage.run("CREATE TABLE devices (id bigint PRIMARY KEY)")
    stage.run("ALTER TABLE metrics ADD COLUMN device bigint REFERENCES devices")
    maker, writer, reader = sessions("maker"), sessions("writer"), sessions("reader")

    writer.begin()
    writer.run("INSERT INTO devices VALUES (1)")
    maker.start(RANGE)
    maker.wait_blocked_by(writer)
    reader.run("SET lock_timeout = '50ms'")
    chunk_day = stage.value("SELECT to_char(max(range_start), 'YYYY-MM-DD') FROM lakets._chunk_metadata")

    assert reader.value(f"SELECT count(*) FROM metrics WHERE at = '{chunk_day} 05:00+00'") == 0

    writer.commit()
    assert maker.finish() == [(3,)]


# ensure/writer of the default partition: its row must not be left behind when its chunk comes.
def test_a_row_that_is_on_its_way_into_the_default_gets_into_its_chunk(
    stage: Stage, sessions: Sessions
) -> None:
    stage.table()
    maker, writer = sessions("maker"), sessions("writer")
    writer.begin()
    writer.run("INSERT INTO metrics VALUES (100, '2024-02-02', 1)")

    maker.start(RANGE)
    maker.wait_blocked_by(writer)
    writer.commit()

    assert maker.finish() == [(3,)]
    assert count(stage, "metrics_default") == 0
    assert stage.value("SELECT value FROM metrics_20240202_000000") == 1


# writer/ensure: it waits with a row while that row's chunk is made in a table nobody was using.
def test_a_row_that_waits_for_its_chunk_to_be_made_goes_there(stage: Stage, sessions: Sessions) -> None:
    stage.table()
    maker, writer = sessions("maker"), sessions("writer")
    maker.begin()
    maker.run(RANGE)

    writer.start("INSERT INTO metrics VALUES (100, '2024-02-02', 1)")
    writer.wait_blocked_by(maker)
    maker.commit()
    writer.finish()

    assert stage.value("SELECT value FROM metrics_20240202_000000") == 1


# writer/ensure: it waits with a row for the default partition while that row's chunk is attached,
# because another row waits for a chunk there.
def test_a_row_for_the_default_whose_chunk_came_meanwhile_is_not_lost_silently(
    stage: Stage, sessions: Sessions
) -> None:
    stage.table()
    stage.run("INSERT INTO metrics VALUES (99, '2024-02-01', 1)")
    maker, writer = sessions("maker"), sessions("writer")
    maker.begin()
    maker.run(RANGE)

    writer.start("INSERT INTO metrics VALUES (100, '2024-02-02', 1)")
    writer.wait_blocked_by(maker)
    maker.commit()

    # Postgres has routed the row already and refuses it; another try finds the chunk.
    with pytest.raises(psycopg.errors.CheckViolation):
        writer.finish()
    writer.run("INSERT INTO metrics VALUES (100, '2024-02-02', 1)")
    assert stage.value("SELECT value FROM metrics_20240202_000000") == 1


# ensure/reader of everything: it reads the default partition, too. Contended is told as contended.
def test_a_maker_steps_back_from_a_long_reader_and_leaves_nothing(stage: Stage, sessions: Sessions) -> None:
    stage.table()
    stage.run("ALTER FUNCTION lakets._ensure_partitions SET lock_timeout = '500ms'")
    reader, maker = sessions("reader"), sessions("maker")
    tables = "SELECT count(*) FROM pg_class WHERE relname LIKE 'metrics%'"
    before = stage.value(tables)
    reader.begin()
    reader.run("SELECT count(*) FROM metrics")

    maker.start(RANGE)
    maker.wait_blocked_by(reader)

    with pytest.raises(psycopg.errors.LockNotAvailable):
        maker.finish()
    reader.commit()
    assert stage.value(tables) == before
    assert maker.run(RANGE) == [(3,)]


def test_when_nothing_is_due_no_lock_is_asked_for(stage: Stage, sessions: Sessions) -> None:
    stage.table()
    stage.run(RANGE)
    other, maker = sessions("other"), sessions("maker")
    other.begin()
    other.run("LOCK TABLE metrics IN SHARE ROW EXCLUSIVE MODE")
    other.run("LOCK TABLE metrics_default IN EXCLUSIVE MODE")

    assert maker.run(RANGE) == [(0,)]


def test_a_maker_with_an_old_snapshot_is_refused(stage: Stage, sessions: Sessions) -> None:
    stage.table()
    maker = sessions("maker")
    maker.begin("REPEATABLE READ")

    with pytest.raises(psycopg.errors.RaiseException):
        maker.run(RANGE)


# create/create: the second waits, and must not convert what is converted.
def test_the_second_of_two_conversions_is_told(stage: Stage, sessions: Sessions) -> None:
    stage.run("CREATE TABLE metrics (at timestamptz)")
    first, second = sessions("first"), sessions("second")
    first.begin()
    first.run("SELECT lakets.create_chronotable('metrics', 'at')")

    second.start("SELECT lakets.create_chronotable('metrics', 'at')")
    second.wait_blocked_by(first)
    first.commit()

    with pytest.raises(psycopg.errors.RaiseException):
        second.finish()
    assert second.value("SELECT lakets.create_chronotable('metrics', 'at', p_if_not_exists => true)") == 1


# create/writer: rows written before the lock come along, rows written after it find the new table.
def test_no_row_is_lost_around_a_conversion(stage: Stage, sessions: Sessions) -> None:
    stage.run("CREATE TABLE metrics (at timestamptz)")
    before, converter, after = sessions("before"), sessions("converter"), sessions("after")
    before.begin()
    before.run("INSERT INTO metrics VALUES (now())")
    converter.start("SELECT lakets.create_chronotable('metrics', 'at')")
    converter.wait_blocked_by(before)
    after.start("INSERT INTO metrics VALUES (now())")
    after.wait_blocked_by(converter)
    before.commit()

    converter.finish()
    after.finish()

    assert count(stage) == 2


# create/DDL: what is checked must still be so once the table is locked.
def test_a_key_added_while_a_conversion_waits_is_seen(stage: Stage, sessions: Sessions) -> None:
    stage.run("CREATE TABLE metrics (at timestamptz NOT NULL, id int NOT NULL)")
    other, converter = sessions("other"), sessions("converter")
    other.begin()
    other.run("ALTER TABLE metrics ADD PRIMARY KEY (id)")

    converter.start("SELECT lakets.create_chronotable('metrics', 'at')")
    converter.wait_blocked_by(other)
    other.commit()

    with pytest.raises(psycopg.errors.RaiseException, match="metrics_pkey"):
        converter.finish()


# drop_chronotable/everybody: what hangs on the table goes with it, or stays with it.
@pytest.fixture
def laden(stage: Stage) -> None:
    """Create a ChronoTable with everything: shadows, a policy, a RollUp and one above it."""
    stage.once(make_laden)
    stage.follow()


def make_laden(stage: Stage) -> None:
    stage.make_synced()
    stage.rollup("hourly")
    stage.rollup("daily", reads="hourly", every="1 day")
    stage.run("SELECT lakets.enable_sync('hourly')")


@pytest.mark.parametrize(
    ("call", "end"),
    [
        pytest.param(WRITE, "COMMIT", id="write"),
        pytest.param(READ, "COMMIT", id="read"),
        pytest.param(RANGE, "COMMIT", id="partition"),
        pytest.param(CANDIDATES, "COMMIT", id="candidates"),
        pytest.param(TIER, "COMMIT", id="tier"),
        pytest.param(RETAIN, "COMMIT", id="retain"),
        pytest.param(REFRESH, "COMMIT", id="refresh"),
        pytest.param(REFRESH_TOP, "COMMIT", id="refresh daily"),
        pytest.param(WRITE, "ROLLBACK", id="write rolled back"),
        pytest.param(RANGE, "ROLLBACK", id="partition rolled back"),
        pytest.param(RETAIN, "ROLLBACK", id="retain rolled back"),
    ],
)
def test_a_drop_waits_for_whoever_was_first_and_leaves_nothing(
    stage: Stage, laden: None, sessions: Sessions, call: str, end: str
) -> None:
    other, dropper = sessions("other"), sessions("dropper")
    other.begin()
    other.run(call)

    dropper.start(DROP)
    dropper.wait_blocked_by(other)
    other.run(end)
    dropper.finish()

    assert stage.column(LEFT) == []


# drop/job in the middle: it has one lock, and will ask for the next.
@pytest.mark.parametrize(
    ("call", "function", "when", "result"),
    [
        (RANGE, "_lock_maintenance", "after", 3),
        (RANGE, "_register_chunks", "before", 3),
        (RETAIN, "_prove", "before", 4),
        (RETAIN, "_prove", "after", 4),
        (REFRESH_TOP, "_is_idle", "before", True),
        (REFRESH_TOP, "_is_idle", "after", True),
    ],
    ids=["partition", "partition made", "retain", "retain proved", "refresh daily", "refresh daily done"],
)
def test_a_drop_waits_for_a_job_that_is_at_it(
    stage: Stage,
    laden: None,
    sessions: Sessions,
    gates: Callable[..., Gate],
    call: str,
    function: str,
    when: str,
    result: object,
) -> None:
    job, dropper = sessions("job"), sessions("dropper")
    gate = gates(job, function, when)
    job.start(call)
    job.wait_blocked_by(gate)
    dropper.start(DROP)
    dropper.wait_blocked_by(job)
    gate.open()

    assert job.finish() == [(result,)]
    dropper.finish()
    assert stage.column(LEFT) == []


# drop/writer in the middle: it has the table, and will have the shadow at the end of its statement.
def test_a_drop_takes_the_table_before_its_shadow_as_writers_do(
    stage: Stage, laden: None, sessions: Sessions, gates_at_rows: Callable[..., Gate]
) -> None:
    writer, dropper = sessions("writer"), sessions("dropper")
    gate = gates_at_rows(writer, "metrics", "AFTER INSERT")
    writer.start(WRITE)
    writer.wait_blocked_by(gate)
    dropper.start(DROP)
    dropper.wait_blocked_by(writer)
    gate.open()

    writer.finish()
    dropper.finish()
    assert stage.column(LEFT) == []


@pytest.mark.parametrize("call", [WRITE, READ, RANGE, RETAIN], ids=["write", "read", "partition", "retain"])
def test_whoever_waits_for_a_drop_is_told_that_the_table_is_gone(
    stage: Stage, laden: None, sessions: Sessions, call: str
) -> None:
    dropper, other = sessions("dropper"), sessions("other")
    dropper.begin()
    dropper.run(DROP)

    other.start(call)
    other.wait_blocked_by(dropper)
    dropper.commit()

    with pytest.raises((psycopg.errors.UndefinedTable, psycopg.errors.RaiseException)):
        other.finish()
    assert stage.column(LEFT) == []


@pytest.mark.parametrize(
    ("call", "result"),
    [(WRITE, []), (READ, [(4,)]), (RANGE, [(3,)]), (CANDIDATES, [(4,)]), (TIER, [(True,)]), (RETAIN, [(4,)])],
    ids=["write", "read", "partition", "candidates", "tier", "retain"],
)
def test_whoever_waits_for_a_drop_that_is_rolled_back_goes_on(
    stage: Stage, laden: None, sessions: Sessions, call: str, result: list[tuple[object]]
) -> None:
    dropper, other = sessions("dropper"), sessions("other")
    dropper.begin()
    dropper.run(DROP)

    other.start(call)
    other.wait_blocked_by(dropper)
    dropper.rollback()

    assert other.finish() == result


# drop/refresh: a refresh waits for no other maintainer of its RollUp, so here they do not meet.
@pytest.mark.parametrize("name", ["hourly", "daily"])
def test_a_refresh_steps_aside_for_a_drop(stage: Stage, laden: None, sessions: Sessions, name: str) -> None:
    dropper, refresher = sessions("dropper"), sessions("refresher")
    call = f"SELECT lakets.refresh_rollup('{name}', true)"
    dropper.begin()
    dropper.run(DROP)

    assert refresher.value(call) is False

    dropper.rollback()
    assert refresher.value(call) is True
    dropper.run(DROP)
    with pytest.raises(psycopg.errors.RaiseException, match=f"RollUp {name} does not exist"):
        refresher.run(call)


# drop/reader, writer behind it: the RollUps are gone by the time the drop meets the reader; they
# come back.
def test_a_drop_steps_back_from_a_long_reader_and_leaves_all_as_it_was(
    stage: Stage, laden: None, sessions: Sessions
) -> None:
    stage.set_lock_timeout("500ms", "drop_chronotable")
    reader, dropper, writer = sessions("reader"), sessions("dropper"), sessions("writer")
    before = stage.column(LEFT)
    reader.begin()
    reader.run(READ)

    dropper.start(DROP)
    dropper.wait_blocked_by(reader)
    writer.start(WRITE)
    writer.wait_blocked_by(dropper)

    with pytest.raises(psycopg.errors.LockNotAvailable):
        dropper.finish()
    writer.finish()
    assert sorted(stage.column(LEFT)) == sorted([*before, "logged change"])
    stage.refresh("hourly")
    assert stage.difference("hourly") == []


# stranger/jobs: advisory locks can be taken by whoever can connect.
@pytest.mark.parametrize("job", [RANGE, RETAIN, "SELECT lakets.enable_sync('metrics')", DROP])
def test_a_stranger_with_the_maintenance_lock_is_named_as_contending(
    stage: Stage, sessions: Sessions, job: str
) -> None:
    stage.synced()
    stranger = sessions("stranger")
    stranger.run(
        "SELECT pg_advisory_lock(hashtext('lakets'),"
        " ('metrics'::regclass::oid::bigint - 2147483648)::integer)"
    )
    stage.set_lock_timeout("100ms")

    with pytest.raises(
        psycopg.errors.LockNotAvailable, match=f"Maintenance of public.metrics .*pid {stranger.pid}, role"
    ):
        stage.run(job)

    assert count(stage) == 4
