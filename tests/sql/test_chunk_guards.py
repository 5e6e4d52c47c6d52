"""A chunk is written through its table only, and TRUNCATE of the table calls nothing for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sandbox import Sandbox

CHUNKS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'metrics'::regclass ORDER BY 1"
GUARD = "SELECT lakets.guard_chunks('metrics')"
# The guard of a chunk as it was made before TRUNCATE had a trigger of its own.
OLDER = """
DROP TRIGGER lakets_no_direct_truncate ON {chunk};
CREATE OR REPLACE TRIGGER lakets_no_direct_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {chunk}
   FOR EACH STATEMENT EXECUTE FUNCTION lakets._refuse_direct_write();
ALTER TABLE {chunk} ENABLE ALWAYS TRIGGER lakets_no_direct_write;
"""
WRITES = ["INSERT INTO {} (ts) VALUES (now())", "UPDATE {} SET value = 1", "DELETE FROM {}", "TRUNCATE {}"]


@pytest.fixture
def older(db: Sandbox) -> Sandbox:
    """A table with a row, whose chunks have the guards of an older version."""
    db.chronotable()
    db.run("INSERT INTO metrics (ts) VALUES (now())")
    for chunk in db.column(CHUNKS):
        db.run(OLDER.format(chunk=chunk))
    return db


def assert_guarded(db: Sandbox) -> None:
    for chunk in db.column(CHUNKS):
        for write in WRITES:
            with db.refused("P0001", "cannot be written directly"):
                db.run(write.format(chunk))


@pytest.mark.parametrize("statement", WRITES)
@pytest.mark.parametrize("which", ["chunk", "default"])
@pytest.mark.parametrize("role", ["origin", "replica"])
def test_a_chunk_cannot_be_written_directly(db: Sandbox, which: str, statement: str, role: str) -> None:
    db.chronotable()
    chunk = db.value("SELECT chunk_name FROM lakets.show_chunks('metrics') LIMIT 1")
    db.run(f"SET LOCAL session_replication_role = {role}")

    with db.refused("P0001", "is a chunk of a ChronoTable"):
        db.run(statement.format("metrics_default" if which == "default" else chunk))


def test_emptying_one_table_does_not_open_the_chunks_of_another(db: Sandbox) -> None:
    db.chronotable()
    db.chronotable(name="other")
    db.run("INSERT INTO other (ts) VALUES (now())")

    with db.refused("P0001", "other_default is a chunk"):
        db.run("TRUNCATE metrics, other_default")
    db.run("TRUNCATE metrics, other")

    assert db.value("SELECT count(*) FROM other") == 0


# Postgres compiles a trigger's function for each chunk and keeps its plans: quadratic time.
def test_emptying_a_table_calls_no_function_for_its_chunks(db: Sandbox) -> None:
    db.chronotable()
    db.run("INSERT INTO metrics (ts) VALUES (now())")

    db.run("SET LOCAL track_functions = 'all'; TRUNCATE metrics")

    assert db.value("SELECT count(*) FROM metrics") == 0
    called = db.column("SELECT funcname FROM pg_stat_xact_user_functions WHERE calls > 0")
    assert "_end_truncate" in called
    assert "_refuse_direct_write" not in called


def test_a_truncate_that_failed_does_not_open_the_chunks(db: Sandbox) -> None:
    db.chronotable()
    db.run(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;"
        " CREATE TRIGGER fail AFTER TRUNCATE ON metrics FOR EACH STATEMENT EXECUTE FUNCTION fail()"
    )
    with db.refused("P0001", "not this one"):
        db.run("TRUNCATE metrics")

    assert_guarded(db)


# A dump has the name of the chunk in the condition of its guard.
def test_a_chunk_stays_guarded_under_another_name(db: Sandbox) -> None:
    db.chronotable()
    db.run("INSERT INTO metrics (ts) VALUES (now())")
    db.run("ALTER TABLE metrics_default RENAME TO rest; ALTER TABLE metrics RENAME TO other")
    db.run("ALTER TABLE rest SET SCHEMA lakets_cdf")

    with db.refused("P0001", "rest is a chunk"):
        db.run("TRUNCATE lakets_cdf.rest")
    db.run("TRUNCATE other")

    assert db.value("SELECT count(*) FROM other") == 0


def test_a_chunk_that_was_detached_can_be_dropped_and_so_can_its_table(db: Sandbox) -> None:
    db.chronotable()
    chunk = db.column(CHUNKS)[0]
    db.run(f"ALTER TABLE metrics DETACH PARTITION {chunk}")

    with db.refused("P0001", "cannot be written directly"):
        db.run(f"TRUNCATE {chunk}")
    db.run("DROP TABLE metrics")
    db.run(f"DROP TABLE {chunk}")


def test_a_chunk_without_one_of_its_guards_is_guarded_again(db: Sandbox) -> None:
    db.chronotable()
    chunks = db.column(CHUNKS)
    for chunk, event in zip(chunks, ["write", "truncate"], strict=False):
        db.run(f"DROP TRIGGER lakets_no_direct_{event} ON {chunk}")

    assert db.value("SELECT lakets._unguarded_partitions('metrics')::text[]") == chunks[:2]
    assert db.value(GUARD) == 2
    assert db.value(GUARD) == 0

    assert_guarded(db)


def test_chunks_with_older_guards_are_guarded(older: Sandbox) -> None:
    assert_guarded(older)
    older.run("TRUNCATE metrics")

    assert older.value("SELECT lakets._unguarded_partitions('metrics')::text") == "{}"
    assert older.value("SELECT count(*) FROM metrics") == 0


def test_older_guards_are_renewed_in_batches_and_nothing_counts_as_changed(older: Sandbox) -> None:
    logged = older.run("SELECT * FROM lakets._change_log")
    chunks = older.column(CHUNKS)

    assert older.value("SELECT lakets.guard_chunks('metrics', p_max_chunks => 2)") == 2
    (repair,) = older.run("SELECT problem, remedy FROM lakets.pending_repairs()")
    assert repair == (
        f"{len(chunks) - 2} of {len(chunks)} chunks have the guard of an older version,"
        " so TRUNCATE of the table is slow",
        "SELECT lakets.guard_chunks('metrics', 'public'); until it returns 0, or run `lakets install`",
    )
    assert older.value(GUARD) == len(chunks) - 2
    assert older.value(GUARD) == 0

    assert older.run("SELECT * FROM lakets.pending_repairs()") == []
    assert older.run("SELECT * FROM lakets._change_log") == logged
    assert_guarded(older)
    older.run("SET LOCAL track_functions = 'all'; TRUNCATE metrics")
    assert "_refuse_direct_write" not in older.column(
        "SELECT funcname FROM pg_stat_xact_user_functions WHERE calls > 0"
    )


def test_retention_drops_chunks_with_older_guards(older: Sandbox) -> None:
    chunk = older.value("SELECT chunk_name FROM lakets.show_chunks('metrics') LIMIT 1")
    older.run("SELECT lakets.add_retention_policy('metrics', '1 second')")
    older.run("UPDATE lakets._chunk_metadata SET range_end = range_start WHERE chunk_name = %s", chunk)

    assert older.value("SELECT lakets.execute_retention('metrics')") == 1
