"""A session caches the plans of its triggers, but must notice that another altered the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

INSERT = "INSERT INTO metrics (at, device) VALUES (clock_timestamp(), 1)"
GAPS = "SELECT count(*) FROM lakets._mirror_gap"


@pytest.fixture
def writer(conn: psycopg.Connection, connect: Callable[[], psycopg.Connection]) -> psycopg.Connection:
    """Yield a session that inserted into a synced table often enough to cache its plans."""
    conn.execute("SET client_min_messages = error")
    conn.execute(
        "CREATE TABLE metrics (at timestamptz, device integer, value float8, PRIMARY KEY (at, device))"
    )
    conn.execute("SELECT lakets.create_chronotable('metrics', 'at')")
    conn.execute("SELECT lakets.enable_sync('metrics')")
    session = connect()
    for _ in range(10):
        session.execute(INSERT)
    return session


def gaps(conn: psycopg.Connection) -> int:
    row = conn.execute(GAPS).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    "alteration",
    [
        pytest.param("ADD COLUMN note text", id="column added"),
        pytest.param("DROP COLUMN value", id="column dropped"),
        pytest.param("RENAME COLUMN value TO reading", id="column renamed"),
        pytest.param("ALTER COLUMN value TYPE numeric", id="type changed"),
        pytest.param("DROP CONSTRAINT metrics_pkey", id="key dropped"),
    ],
)
def test_writer_with_old_plans_notes_a_gap(
    conn: psycopg.Connection, writer: psycopg.Connection, alteration: str
) -> None:
    assert gaps(conn) == 0
    conn.execute(f"ALTER TABLE metrics {alteration}")

    writer.execute(INSERT)

    assert gaps(conn) == 1


def test_what_an_old_snapshot_saw_is_not_kept(conn: psycopg.Connection, writer: psycopg.Connection) -> None:
    # The plan made in the transaction reads the catalog as of its snapshot: before the column was
    # added.
    writer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    writer.execute("SELECT")
    conn.execute("ALTER TABLE metrics ADD COLUMN note text")
    writer.execute(INSERT)
    writer.execute("COMMIT")
    conn.execute("DELETE FROM lakets._mirror_gap")

    writer.execute(INSERT)

    assert gaps(conn) == 1
