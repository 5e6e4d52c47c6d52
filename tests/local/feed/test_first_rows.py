"""Between the first rows of a table and its later changes, nothing is lost or duplicated."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_provider_lakets.local.feed import catalog, control, first_rows, follower
from airflow_provider_lakets.local.feed.catalog import Catalog, Visibility
from airflow_provider_lakets.local.feed.delta import History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from tests.local.conftest import Cdf


def before_append(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once, when the first rows have been read but not written."""
    append = History.append
    todo = [act]

    def act_first(self: History, *args: Any) -> None:
        if todo:
            todo.pop()()
        append(self, *args)

    monkeypatch.setattr(History, "append", act_first)


def test_the_rows_a_table_has_are_inserts_before_all_that_follows(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    cdf.feed.run_once()
    cdf.execute("UPDATE t SET note = 'c' WHERE id = 1")
    cdf.feed.run_once()

    assert cdf.changes("t") == [
        ("insert", 1, "a"),
        ("insert", 2, "b"),
        ("update_preimage", 1, "a"),
        ("update_postimage", 1, "c"),
    ]


def test_a_table_counts_as_unread_until_its_first_rows_are_written(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Catalog.save_first_rows
    unread = []

    def save_and_look(self: Catalog, *args: Any, **kwargs: Any) -> None:
        save(self, *args, **kwargs)
        unread.append(cdf.execute(control._UNREAD).fetchall())

    monkeypatch.setattr(Catalog, "save_first_rows", save_and_look)
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1, 'a')")
    cdf.feed.run_once()

    assert unread == [[("t",)]]
    assert cdf.execute(control._UNREAD).fetchall() == []


def test_many_first_rows_are_one_delta_commit(cdf: Cdf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_rows, "BATCH_ROWS", 100)
    cdf.shadow("t")
    cdf.execute("INSERT INTO t SELECT generate_series(1, 1050)")

    assert cdf.feed.run_once() == [("t", 1050)]

    assert [row["id"] for row in cdf.history("t")] == list(range(1, 1051))


def test_a_change_made_while_the_first_rows_are_read_follows_them(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1, 'a')")
    before_append(monkeypatch, lambda: cdf.execute("UPDATE t SET note = 'b'; INSERT INTO t VALUES (2)"))

    cdf.feed.run_once()

    assert cdf.changes("t") == [
        ("insert", 1, "a"),
        ("update_preimage", 1, "a"),
        ("update_postimage", 1, "b"),
        ("insert", 2, None),
    ]


def test_a_writer_from_before_the_table_was_published_is_waited_for(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The race: it wrote one row that the stream does not carry, and commits after the first rows
    # are read.
    monkeypatch.setattr(follower, "_WRITER_PATIENCE_SECONDS", 0.05)
    cdf.feed.run_once()
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    writer = cdf.session()
    writer.execute("INSERT INTO t VALUES (2)")

    assert cdf.feed.run_once() == []
    assert cdf.status("t") == ("PENDING", None, False)

    writer.execute("INSERT INTO t VALUES (3)")
    writer.commit()
    writer.close()
    cdf.execute("INSERT INTO t VALUES (4)")
    cdf.feed.run_once()
    assert sorted(row["id"] for row in cdf.history("t")) == [1, 2, 3, 4]


def test_a_writer_that_is_prepared_meanwhile_is_still_waited_for(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "_WRITER_PATIENCE_SECONDS", 0.05)
    cdf.feed.run_once()
    cdf.shadow("t")
    writer = cdf.session()
    writer.execute("INSERT INTO t VALUES (1)")
    assert cdf.feed.run_once() == []

    writer.execute("PREPARE TRANSACTION 'later'")
    writer.rollback()
    writer.close()
    cdf.feed.run_once()
    cdf.execute("COMMIT PREPARED 'later'")
    cdf.feed.run_once()

    assert cdf.changes("t") == [("insert", 1, None)]


def test_a_writer_from_after_the_table_was_published_is_not_waited_for(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "_WRITER_PATIENCE_SECONDS", 0.05)
    cdf.feed.run_once()
    cdf.shadow("t")
    early, late = cdf.session(), cdf.session()
    early.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()  # published, and waits for the early one
    late.execute("INSERT INTO t VALUES (2)")
    early.commit()

    cdf.feed.run_once()
    assert [row["id"] for row in cdf.history("t")] == [1]

    late.commit()
    cdf.feed.run_once()
    assert [row["id"] for row in cdf.history("t")] == [1, 2]
    early.close()
    late.close()


def test_a_transaction_open_since_before_the_table_was_published_may_write_afterwards(cdf: Cdf) -> None:
    cdf.shadow("other")
    cdf.feed.run_once()
    writer = cdf.session()
    writer.execute("INSERT INTO other VALUES (1)")
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()

    writer.execute("INSERT INTO t VALUES (2)")
    cdf.execute("INSERT INTO t VALUES (3)")
    cdf.feed.run_once()
    writer.commit()
    writer.close()
    cdf.feed.run_once()

    assert [row["id"] for row in cdf.history("t")] == [1, 3, 2]
    assert cdf.is_replayed("other")


def test_a_transaction_streamed_in_vain_must_be_among_the_first_rows(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The race: a transaction is in the log before other snapshots see it. Here such a snapshot is
    # feigned.
    monkeypatch.setattr(follower, "_WRITER_PATIENCE_SECONDS", 0.05)
    cdf.shadow("t")
    early = cdf.session()
    early.execute("SELECT FROM t; LOCK TABLE t IN ROW EXCLUSIVE MODE")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()  # streamed, but the first rows are not read yet
    early.rollback()
    early.close()
    sees = Visibility.sees
    monkeypatch.setattr(Visibility, "sees", lambda self, xid: False)
    cdf.feed.run_once()
    assert not cdf.is_in_delta("t")

    monkeypatch.setattr(Visibility, "sees", sees)
    cdf.feed.run_once()

    assert [row["id"] for row in cdf.history("t")] == [1]


def test_a_transaction_in_the_first_rows_is_not_streamed_again(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdf.shadow("t")
    publish = Catalog.publish

    def publish_and_write(self: Catalog, shadow: str) -> None:
        publish(self, shadow)
        cdf.execute("INSERT INTO t VALUES (1)")

    monkeypatch.setattr(Catalog, "publish", publish_and_write)

    cdf.feed.run_once()

    assert [row["id"] for row in cdf.history("t")] == [1]


def test_a_table_rewritten_while_it_is_begun_does_not_look_empty(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    other = cdf.session()
    read = Catalog.insert_lsn

    def rewrite(self: Catalog) -> int:
        monkeypatch.setattr(Catalog, "insert_lsn", read)
        other.execute("ALTER TABLE t ALTER id TYPE bigint")
        threading.Timer(0.3, other.commit).start()  # the reader queues behind it
        return read(self)

    monkeypatch.setattr(Catalog, "insert_lsn", rewrite)

    cdf.feed.run_once()

    assert [row["id"] for row in cdf.history("t")] == [1]
    other.close()


def test_a_locked_table_is_begun_in_a_later_round(cdf: Cdf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog._OPTIONS, "lock_timeout", "50ms")
    cdf.feed.run_once()
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    other = cdf.session()
    other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
    assert cdf.feed.run_once() == []

    other.rollback()
    other.close()

    assert cdf.feed.run_once() == [("t", 1)]


def test_nothing_is_lost_or_doubled_while_many_write(cdf: Cdf) -> None:
    names = [cdf.shadow(f"t{number}") for number in range(4)]
    for name in names:
        cdf.execute(f"INSERT INTO {name} SELECT n, 'first' FROM generate_series(1, 20) AS n")

    with writers(cdf.conninfo, names):
        cdf.feed.run_once()
        while cdf.one("SELECT bool_or(status <> 'STREAMING') FROM wal2delta.tables"):
            cdf.feed.run_once()
    cdf.feed.run_once()

    assert [name for name in names if not cdf.is_replayed(name)] == []


@contextmanager
def writers(conninfo: str, names: list[str]) -> Iterator[None]:
    """Let three sessions write to tables until the end of the block."""
    stop = threading.Event()
    threads = [threading.Thread(target=write, args=(conninfo, names, seed, stop)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def write(conninfo: str, names: list[str], seed: int, stop: threading.Event) -> None:
    """Change this session's rows in all tables until the stop; no table grows for long."""
    with psycopg.connect(conninfo) as conn:
        conn.execute("SET search_path = lakets_cdf")
        conn.commit()
        number = seed
        while not stop.wait(0.01):  # the feed is to keep up
            number += 3
            name = names[number % len(names)]
            ours = "WHERE id %% 3 = %s AND"
            conn.execute(
                f"INSERT INTO {name} SELECT %s, 'x' FROM generate_series(1, %s)", [number, number % 7]
            )
            conn.execute(f"UPDATE {name} SET note = note || 'y' {ours} id %% 5 = %s", [seed % 3, number % 5])
            conn.execute(f"DELETE FROM {name} {ours} id < %s", [seed % 3, number - 200])
            conn.commit() if number % 5 else conn.rollback()
