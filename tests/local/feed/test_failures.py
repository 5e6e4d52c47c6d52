"""Failures of the feed: what they affect, and how the feed continues."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from deltalake import DeltaTable, write_deltalake

from airflow_provider_lakets.local.feed import catalog, control, delta, follower, replication
from airflow_provider_lakets.local.feed.delta import History, history_path
from airflow_provider_lakets.local.feed.feed import DeliveryError, Feed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.local.conftest import Cdf

OUR_SLOT = "FROM pg_replication_slots WHERE database = current_database()"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Yield the names of histories that cannot be written."""
    stuck: set[str] = set()
    append = History.append

    def fail(self: History, *args: object) -> None:
        if self.path.name in {f"lb_{name}_history" for name in stuck}:
            raise OSError(28, "No space left on device")
        append(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(History, "append", fail)
    monkeypatch.setattr(follower, "_WRITE_ATTEMPTS", 1)
    return stuck


def test_a_value_that_delta_cannot_store_stops_its_table_only(cdf: Cdf) -> None:
    cdf.shadow("bad", "id integer")
    cdf.shadow("good")
    cdf.execute("INSERT INTO bad VALUES (1)")
    cdf.feed.run_once()
    cdf.execute(
        "ALTER TABLE bad ALTER id TYPE text; INSERT INTO bad VALUES ('two'); INSERT INTO good VALUES (1)"
    )

    flushed = cdf.feed.run_once()

    assert flushed == [("good", 1)]
    status = cdf.status("bad")
    assert status is not None
    assert status.status == "SKIPPED"
    reason = cdf.one("SELECT skipped_for FROM wal2delta_local.sync WHERE table_oid = 'bad'::regclass")
    assert "column 'id' cannot be stored as int32" in reason


def test_a_table_made_right_is_begun_again(cdf: Cdf) -> None:
    cdf.shadow("t", "id integer")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()
    cdf.execute("ALTER TABLE t ALTER id TYPE text; INSERT INTO t VALUES ('two')")
    cdf.feed.run_once()

    cdf.execute("DELETE FROM t WHERE id = 'two'; ALTER TABLE t ALTER id TYPE integer USING id::integer")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (3)")
    cdf.feed.run_once()

    assert cdf.changes("t") == [("insert", 1), ("insert", 1), ("insert", 3)]


@pytest.mark.parametrize("column", ["_sort_by text", '"ID" integer'], ids=["metadata", "case"])
def test_a_column_that_delta_cannot_have_skips_the_table(cdf: Cdf, column: str) -> None:
    cdf.shadow("t", f"id integer, {column}")
    cdf.execute("INSERT INTO t VALUES (1)")

    cdf.feed.run_once()

    status = cdf.status("t")
    assert status is not None
    assert status.status == "SKIPPED"


def test_committed_lsn_stands_still_while_delta_cannot_be_written(cdf: Cdf, full_disk: set[str]) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()
    before = cdf.status("t")
    full_disk.add("t")
    cdf.execute("INSERT INTO t VALUES (2)")

    with pytest.raises(DeliveryError, match="No space left"):
        cdf.feed.run_once()
    assert cdf.status("t") == before

    full_disk.clear()
    cdf.feed.run_once()
    assert cdf.status("t") == ("STREAMING", cdf.commit_lsn("t"), True)
    assert [row["id"] for row in cdf.history("t")] == [1, 2]


def test_a_table_that_cannot_be_written_does_not_hold_up_the_others(cdf: Cdf, full_disk: set[str]) -> None:
    cdf.feed.batch_rows = 1
    cdf.shadow("stuck")
    cdf.shadow("good")
    cdf.feed.run_once()
    full_disk.add("stuck")
    cdf.execute("INSERT INTO stuck VALUES (1); INSERT INTO good VALUES (1)")

    for number in (2, 3):
        cdf.execute("INSERT INTO stuck VALUES (%s)", [number])
        cdf.execute("INSERT INTO good VALUES (%s)", [number])
        with pytest.raises(DeliveryError, match="stuck"):
            cdf.feed.run_once()
        assert cdf.status("good") == ("STREAMING", cdf.commit_lsn("good"), True)
    full_disk.clear()
    cdf.feed.run_once()

    assert [row["id"] for row in cdf.history("good")] == [1, 2, 3]
    assert [row["id"] for row in cdf.history("stuck")] == [1, 2, 3]


def test_first_rows_that_cannot_be_written_are_read_again(cdf: Cdf, full_disk: set[str]) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    full_disk.add("t")

    with pytest.raises(DeliveryError, match="No space left"):
        cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (2)")
    full_disk.clear()
    cdf.feed.run_once()

    assert [row["id"] for row in cdf.history("t")] == [1, 2]


def test_a_short_failure_to_write_is_tried_again_within_the_round(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = History.append
    failures = [OSError(28, "No space left on device")]

    def fail_once(self: History, *args: object) -> None:
        if failures:
            raise failures.pop()
        append(self, *args)  # type: ignore[arg-type]

    cdf.shadow("t")
    cdf.feed.run_once()
    monkeypatch.setattr(History, "append", fail_once)
    cdf.execute("INSERT INTO t VALUES (1)")

    assert cdf.feed.run_once() == [("t", 1)]


def test_a_failure_after_the_delta_commit_was_made_is_no_failure(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write_and_fail(*args: object, **kwargs: object) -> None:
        write_deltalake(*args, **kwargs)  # type: ignore[call-overload]
        raise OSError("No space left for the checkpoint")

    cdf.shadow("t")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (1)")
    monkeypatch.setattr(delta, "write_deltalake", write_and_fail)

    assert cdf.feed.run_once() == [("t", 1)]
    assert len(cdf.history("t")) == 1
    assert "failed after its commit was made" in caplog.text


def test_the_server_may_forget_what_is_in_delta(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (1)")
    written = cdf.one("SELECT pg_current_wal_insert_lsn()")

    cdf.feed.run_once()
    cdf.feed.close()

    confirmed = (
        "SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots WHERE database = current_database()"
    )
    assert cdf.execute(confirmed, [written]).fetchall() == [(True,)]


def test_the_slot_stands_still_while_delta_cannot_be_written(cdf: Cdf, full_disk: set[str]) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    full_disk.add("t")
    written = cdf.one("SELECT pg_current_wal_insert_lsn()")
    cdf.execute("INSERT INTO t VALUES (1)")

    with pytest.raises(DeliveryError):
        cdf.feed.run_once()

    confirmed = (
        "SELECT confirmed_flush_lsn > %s FROM pg_replication_slots WHERE database = current_database()"
    )
    assert cdf.execute(confirmed, [written]).fetchall() == [(False,)]


def test_a_removed_delta_table_is_begun_again(cdf: Cdf, tmp_path: Path) -> None:
    cdf.shadow("empty_at_first")
    cdf.shadow("full_at_first")
    cdf.execute("INSERT INTO full_at_first VALUES (1)")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO empty_at_first VALUES (1)")
    cdf.feed.run_once()
    cdf.feed.close()
    cdf.delta_dir.rename(tmp_path / "elsewhere")

    cdf.feed.run_once()

    assert cdf.is_replayed("empty_at_first")
    assert cdf.is_replayed("full_at_first")


def test_a_lost_slot_begins_every_table_again(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()
    cdf.feed.close()
    cdf.execute(f"SELECT pg_drop_replication_slot(slot_name) {OUR_SLOT}")
    cdf.execute("INSERT INTO t VALUES (2)")

    cdf.feed.run_once()

    assert [row["id"] for row in cdf.history("t")] == [1, 1, 2]


def test_a_crash_after_a_lost_slot_was_made_anew_hides_nothing(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()
    cdf.feed.close()
    cdf.execute(f"SELECT pg_drop_replication_slot(slot_name) {OUR_SLOT}")
    cdf.execute("INSERT INTO t VALUES (2)")
    with monkeypatch.context() as patch:
        patch.setattr(follower, "ReplicationStream", None)
        with pytest.raises(TypeError):
            cdf.feed.run_once()

    cdf.feed.run_once()

    assert [row["id"] for row in cdf.history("t")] == [1, 1, 2]


def test_first_rows_that_cannot_be_read_do_not_hold_up_the_others(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_columns = catalog.read_columns

    def fail(reader: Any, oid: int) -> Any:
        if oid == cdf.one("SELECT 'bad'::regclass::oid::bigint"):
            raise psycopg.errors.DataCorrupted("invalid page in block 0")
        return read_columns(reader, oid)

    cdf.shadow("bad")
    cdf.shadow("good")
    cdf.execute("INSERT INTO bad VALUES (1); INSERT INTO good VALUES (1)")
    monkeypatch.setattr(catalog, "read_columns", fail)

    with pytest.raises(DeliveryError, match="bad: invalid page"):
        cdf.feed.run_once()

    status = cdf.status("good")
    assert status is not None
    assert status.status == "STREAMING"


def test_a_second_feed_is_refused(cdf: Cdf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "_PATIENCE_SECONDS", 0.1)
    cdf.feed.run_once()

    with (
        Feed(cdf.conninfo, cdf.delta_dir) as second,
        pytest.raises(replication.SlotInUseError, match="Stop it"),
    ):
        second.run_once()

    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    assert cdf.feed.run_once() == [("t", 1)]


def test_a_paused_feed_does_nothing(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (1)")
    control.pause(cdf.conninfo)

    assert cdf.feed.run_once() == []

    control.resume(cdf.conninfo)
    assert cdf.feed.run_once() == [("t", 1)]


def test_the_feed_goes_on_after_its_connection_is_cut(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lakets-feed'"
    )

    with pytest.raises(psycopg.OperationalError):
        cdf.feed.run_once()

    assert cdf.feed.run_once() == [("t", 1)]
    assert DeltaTable(history_path(cdf.delta_dir, "t")).version() == 0


def test_a_delta_commit_that_did_not_reach_the_disk_is_not_made_again(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (1)")
    sync = History._sync
    failures = [OSError(5, "Input/output error")]

    def fail_once(self: History) -> None:
        if failures:
            raise failures.pop()
        sync(self)

    monkeypatch.setattr(History, "_sync", fail_once)

    assert cdf.feed.run_once() == [("t", 1)]
    assert len(cdf.history("t")) == 1


def test_a_skipped_table_does_not_pile_up_what_it_misses(cdf: Cdf) -> None:
    cdf.shadow("t", "id integer")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()
    cdf.execute("ALTER TABLE t ALTER id TYPE text; INSERT INTO t VALUES ('two')")

    cdf.feed.run_once()

    assert cdf.one("SELECT count(*) FROM pg_publication_tables WHERE tablename = 't'") == 0


def test_marks_outlive_a_checkpoint(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (0)")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()
    DeltaTable(history_path(cdf.delta_dir, "t")).create_checkpoint()
    (cdf.delta_dir / "lb_t_history/_delta_log/00000000000000000000.json").unlink()
    cdf.feed.close()
    cdf.execute("INSERT INTO t VALUES (2)")

    assert cdf.feed.run_once() == [("t", 1)]


def test_a_running_feed_tries_again_until_it_can_write(cdf: Cdf, full_disk: set[str]) -> None:
    cdf.shadow("t")
    full_disk.add("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.interval = 60
    runner = threading.Thread(target=cdf.feed.run)
    runner.start()
    with pytest.raises(control.FeedNotCaughtUpError):
        control.wait_flushed(cdf.conninfo, timeout=0.5)

    full_disk.clear()
    control.wait_flushed(cdf.conninfo, timeout=30)
    cdf.feed.stop()
    runner.join()

    assert [row["id"] for row in cdf.history("t")] == [1]
