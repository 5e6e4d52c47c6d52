"""What the feed writes for each kind of change."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
from deltalake import DeltaTable

from airflow_provider_lakets.local.feed import buffer
from airflow_provider_lakets.local.feed.delta import history_path

if TYPE_CHECKING:
    from tests.local.conftest import Cdf


def test_insert_update_and_delete_are_told_apart(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()

    cdf.execute("INSERT INTO t VALUES (1, 'a')")
    cdf.execute("UPDATE t SET note = 'b'")
    cdf.execute("DELETE FROM t")
    cdf.feed.run_once()

    assert cdf.changes("t") == [
        ("insert", 1, "a"),
        ("update_preimage", 1, "a"),
        ("update_postimage", 1, "b"),
        ("delete", 1, "b"),
    ]


def test_run_once_says_what_it_flushed(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")

    flushed = cdf.feed.run_once()

    assert flushed == [("t", 2)]
    assert cdf.feed.run_once() == []


def test_changes_carry_the_transaction_they_were_made_in(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    before = datetime.now(timezone.utc)
    with cdf.conn.transaction():
        xid = cdf.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        cdf.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    cdf.feed.run_once()

    rows = cdf.history("t")

    assert [(row["_pg_xid"],) for row in rows] == [xid, xid]
    assert before <= rows[0]["_timestamp"] <= datetime.now(timezone.utc)
    lsn = cdf.execute("SELECT '0/0'::pg_lsn + %s::numeric", [rows[0]["_pg_lsn"]]).fetchone()
    assert lsn is not None
    assert lsn[0] == cdf.execute("SELECT committed_lsn FROM wal2delta.tables").fetchall()[0][0]


def test_a_round_writes_one_delta_commit_a_table(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    for number in range(5):
        cdf.execute("INSERT INTO t VALUES (%s)", [number])

    cdf.feed.run_once()

    assert DeltaTable(history_path(cdf.delta_dir, "t")).version() == 0
    assert len(cdf.history("t")) == 5


def test_an_idle_round_writes_nothing(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()
    before = cdf.execute("SELECT pg_current_wal_insert_lsn()").fetchall()

    cdf.feed.run_once()

    assert cdf.execute("SELECT pg_current_wal_insert_lsn()").fetchall() == before
    assert DeltaTable(history_path(cdf.delta_dir, "t")).version() == 0


def test_a_rolled_back_change_is_not_there(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    with cdf.session() as other:
        other.execute("INSERT INTO t VALUES (1)")
        other.rollback()
    with cdf.conn.transaction():
        cdf.execute("INSERT INTO t VALUES (2); SAVEPOINT s; INSERT INTO t VALUES (3); ROLLBACK TO s")
    cdf.feed.run_once()

    assert cdf.changes("t") == [("insert", 2, None)]


def test_an_open_transaction_is_streamed_once_it_commits(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    other = cdf.session()
    other.execute("INSERT INTO t VALUES (1)")
    cdf.execute("INSERT INTO t VALUES (2)")
    cdf.feed.run_once()
    assert cdf.changes("t") == [("insert", 2, None)]

    other.commit()
    other.close()
    cdf.feed.run_once()

    assert cdf.changes("t") == [("insert", 2, None), ("insert", 1, None)]


def test_a_transaction_over_two_tables_reaches_both(cdf: Cdf) -> None:
    cdf.shadow("a")
    cdf.shadow("b")
    cdf.feed.run_once()

    with cdf.conn.transaction():
        cdf.execute("INSERT INTO a VALUES (1); INSERT INTO b VALUES (2); INSERT INTO a VALUES (3)")
    cdf.feed.run_once()

    assert cdf.changes("a") == [("insert", 1, None), ("insert", 3, None)]
    assert cdf.changes("b") == [("insert", 2, None)]


def test_a_large_value_that_an_update_leaves_alone_is_in_both_images(cdf: Cdf) -> None:
    cdf.shadow("t", "id integer, big text")
    cdf.execute("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    cdf.feed.run_once()
    big = "x" * 100_000
    cdf.execute("INSERT INTO t VALUES (1, %s)", [big])
    cdf.execute("UPDATE t SET id = 2")

    cdf.feed.run_once()

    assert [row[1:] for row in cdf.changes("t")] == [(1, big), (1, big), (2, big)]


def test_truncate_leaves_the_history_as_it_is(cdf: Cdf, caplog: pytest.LogCaptureFixture) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()
    cdf.execute("TRUNCATE t")

    assert cdf.feed.run_once() == []

    assert cdf.changes("t") == [("insert", 1, None)]
    assert "t was truncated: its history keeps the rows" in caplog.text


def test_a_transaction_larger_than_memory_is_one_delta_commit(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "BATCH_ROWS", 100)
    monkeypatch.setattr(buffer, "_MEMORY_BYTES", 10_000)
    cdf.shadow("t")
    cdf.feed.run_once()

    cdf.execute("INSERT INTO t SELECT n, repeat('x', n % 50) FROM generate_series(1, 5050) AS n")
    cdf.feed.run_once()

    assert DeltaTable(history_path(cdf.delta_dir, "t")).version() == 0
    assert [row["id"] for row in cdf.history("t")] == list(range(1, 5051))


def test_batches_end_with_a_transaction(cdf: Cdf) -> None:
    cdf.feed.batch_rows = 10
    cdf.shadow("t")
    cdf.feed.run_once()
    for _ in range(4):
        cdf.execute("INSERT INTO t SELECT generate_series(1, 7)")

    flushed = cdf.feed.run_once()

    assert flushed == [("t", 14), ("t", 14)]


def test_a_column_added_later_is_null_in_the_rows_before(cdf: Cdf) -> None:
    cdf.shadow("t", "id integer")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()

    cdf.execute("ALTER TABLE t ADD COLUMN at timestamp")
    cdf.execute("INSERT INTO t VALUES (2, '2024-02-29 12:00')")
    cdf.feed.run_once()

    assert cdf.changes("t") == [("insert", 1, None), ("insert", 2, datetime(2024, 2, 29, 12))]


def test_columns_may_come_and_go_within_one_transaction(cdf: Cdf) -> None:
    cdf.shadow("t", "id integer, note text")
    cdf.feed.run_once()

    with cdf.conn.transaction():
        cdf.execute("INSERT INTO t VALUES (1, 'a')")
        cdf.execute("ALTER TABLE t DROP COLUMN note; ALTER TABLE t ADD COLUMN size bigint")
        cdf.execute("INSERT INTO t VALUES (2, 20)")
    cdf.feed.run_once()

    assert cdf.changes("t") == [("insert", 1, "a", None), ("insert", 2, None, 20)]


def test_a_column_that_became_wider_keeps_its_delta_type(cdf: Cdf) -> None:
    cdf.shadow("t", "id integer")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()

    cdf.execute("ALTER TABLE t ALTER id TYPE bigint")
    cdf.execute("INSERT INTO t VALUES (2)")
    cdf.feed.run_once()

    assert cdf.changes("t") == [("insert", 1), ("insert", 2)]


def test_odd_names_are_kept(cdf: Cdf) -> None:
    table, column = '"Ünder the/bridge.."', '"a ""b"", c"'
    cdf.shadow(table, f"{column} integer")
    cdf.execute(f"INSERT INTO {table} VALUES (1)")
    cdf.feed.run_once()
    cdf.execute(f"INSERT INTO {table} VALUES (2)")
    cdf.feed.run_once()

    rows = cdf.history("Ünder the/bridge..")

    assert [row['a "b", c'] for row in rows] == [1, 2]
    assert [path.parent for path in cdf.delta_dir.glob("*/_delta_log")] == [
        cdf.delta_dir / "lb_~dc~nder~20~the~2f~bridge~2e~~2e~_history"
    ]


def test_the_last_changes_of_a_dropped_table_are_kept(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()

    cdf.execute("INSERT INTO t VALUES (2); DROP TABLE t")
    cdf.feed.run_once()

    assert cdf.changes("t") == [("insert", 1, None), ("insert", 2, None)]
    assert cdf.execute("SELECT * FROM wal2delta.tables").fetchall() == []


def test_a_table_made_anew_goes_on_in_the_same_history(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()

    cdf.execute("INSERT INTO t VALUES (2); DROP TABLE t")
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (3)")
    cdf.feed.run_once()

    assert [row["id"] for row in cdf.history("t")] == [1, 2, 3]


def test_a_renamed_table_starts_again_under_its_new_name(cdf: Cdf) -> None:
    cdf.shadow("before")
    cdf.execute("INSERT INTO before VALUES (1)")
    cdf.feed.run_once()

    cdf.execute(
        "INSERT INTO before VALUES (2); ALTER TABLE before RENAME TO after; INSERT INTO after VALUES (3)"
    )
    cdf.feed.run_once()
    cdf.execute("INSERT INTO after VALUES (4)")
    cdf.feed.run_once()

    assert [row["id"] for row in cdf.history("before")] == [1, 2, 3]
    assert cdf.is_replayed("after")


@pytest.mark.parametrize(
    "definition",
    [
        pytest.param("CREATE TABLE lakets_cdf.t (id integer) PARTITION BY RANGE (id)", id="partitioned"),
        pytest.param("CREATE UNLOGGED TABLE lakets_cdf.t (id integer)", id="unlogged"),
        pytest.param("CREATE VIEW lakets_cdf.t AS SELECT 1 AS id", id="view"),
        pytest.param("CREATE TABLE public.t (id integer)", id="other-schema"),
    ],
)
def test_only_ordinary_tables_of_the_schema_are_followed(cdf: Cdf, definition: str) -> None:
    cdf.execute(definition)

    cdf.feed.run_once()

    assert cdf.execute("SELECT * FROM wal2delta.tables").fetchall() == []


def test_a_generated_column_is_left_out(cdf: Cdf) -> None:
    cdf.shadow("t", "id integer, twice integer GENERATED ALWAYS AS (id * 2) STORED")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (2)")
    cdf.feed.run_once()

    assert cdf.changes("t") == [("insert", 1), ("insert", 2)]
