"""The contents of ``wal2delta.tables`` over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.local.feed import follower
from airflow_provider_lakets.local.feed.delta import History
from airflow_provider_lakets.local.feed.first_rows import read_first_rows
from airflow_provider_lakets.local.feed.replication import ReplicationStream

if TYPE_CHECKING:
    from tests.local.conftest import Cdf


def test_an_empty_table_is_pending_until_its_first_row(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    assert cdf.status("t") == ("PENDING", None, False)
    assert not cdf.is_in_delta("t")

    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()

    assert cdf.status("t") == ("STREAMING", cdf.commit_lsn("t"), True)


def test_a_table_with_rows_streams_once_they_are_read(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    committed_at = cdf.one("SELECT pg_current_wal_insert_lsn()")

    cdf.feed.run_once()

    status = cdf.status("t")
    assert status is not None
    assert (status.status, status.has_written) == ("STREAMING", True)
    assert cdf.execute("SELECT committed_lsn >= %s FROM wal2delta.tables", [committed_at]).fetchall() == [
        (True,)
    ]


def test_the_table_is_snapshotting_while_its_first_rows_are_read(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    append = History.append

    def look(self: History, *args: object) -> None:
        seen.append(cdf.status("t"))
        append(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(History, "append", look)
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")

    cdf.feed.run_once()

    assert seen == [("SNAPSHOTTING", None, False)]


def test_committed_lsn_stands_still_while_others_write(cdf: Cdf) -> None:
    cdf.shadow("idle")
    cdf.shadow("busy")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO idle VALUES (1); INSERT INTO busy VALUES (1)")
    cdf.feed.run_once()
    idle, busy = cdf.status("idle"), cdf.status("busy")

    cdf.execute("CREATE TABLE public.elsewhere AS SELECT generate_series(1, 1000)")
    cdf.execute("INSERT INTO busy VALUES (2)")
    cdf.feed.run_once()

    assert cdf.status("idle") == idle
    assert cdf.status("busy") != busy
    assert cdf.status("busy") == ("STREAMING", cdf.commit_lsn("busy"), True)


def test_first_rows_alone_give_a_committed_lsn_that_stands_still(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()
    first = cdf.status("t")
    cdf.execute("CREATE TABLE public.elsewhere AS SELECT generate_series(1, 1000)")

    cdf.feed.run_once()
    cdf.feed.close()
    cdf.feed.run_once()

    assert cdf.status("t") == first


def test_a_writer_in_flight_keeps_the_first_rows_from_giving_a_committed_lsn(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The race: it noted a position before committed_lsn, commits after, and is taken for flushed.
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    writer = cdf.session()

    def begin_to_write(*args: object, **kwargs: object) -> int | None:
        writer.execute("INSERT INTO t VALUES (2)")
        return read_first_rows(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(follower, "read_first_rows", begin_to_write)
    cdf.feed.run_once()
    assert cdf.status("t") == ("STREAMING", None, True)

    writer.rollback()
    writer.close()
    after = cdf.one("SELECT pg_current_wal_insert_lsn()")
    cdf.feed.run_once()

    assert cdf.one("SELECT committed_lsn >= %s FROM wal2delta.tables", after)


def test_a_position_taken_for_the_first_rows_is_reported_once_all_before_it_is_in_delta(
    cdf: Cdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdf.feed.batch_rows = 1
    cdf.shadow("t")
    cdf.shadow("other")
    cdf.execute("INSERT INTO t VALUES (1)")
    writer = cdf.session()

    def begin_to_write(*args: object, **kwargs: object) -> int | None:
        writer.execute("INSERT INTO t SELECT 2 WHERE NOT EXISTS (SELECT FROM t WHERE id = 2)")
        return read_first_rows(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(follower, "read_first_rows", begin_to_write)
    cdf.feed.run_once()
    monkeypatch.undo()
    cdf.execute("INSERT INTO other VALUES (1)")
    writer.commit()
    writer.close()
    seen = []
    confirm = ReplicationStream.confirm

    def look(self: ReplicationStream, lsn: int) -> None:
        status = cdf.status("t")
        seen.append((len(cdf.history("t")), status is not None and status.committed_lsn is not None))
        confirm(self, lsn)

    monkeypatch.setattr(ReplicationStream, "confirm", look)
    cdf.feed.run_once()

    assert seen[0] == (1, False)
    assert seen[-1] == (2, True)


@pytest.mark.parametrize("identity", ["DEFAULT", "NOTHING", "USING INDEX t_id_key"])
def test_a_table_whose_replica_identity_is_not_full_is_skipped(cdf: Cdf, identity: str) -> None:
    cdf.shadow("t", "id integer NOT NULL UNIQUE")
    cdf.execute(f"ALTER TABLE t REPLICA IDENTITY {identity}")
    cdf.execute("INSERT INTO t VALUES (1)")

    cdf.feed.run_once()

    assert cdf.status("t") == ("SKIPPED", None, False)
    assert not cdf.is_in_delta("t")


def test_writers_of_a_skipped_table_are_left_alone(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.feed.run_once()
    cdf.execute(
        "DROP ROLE IF EXISTS lakets_owner; CREATE ROLE lakets_owner; ALTER TABLE t OWNER TO lakets_owner"
    )
    cdf.execute("GRANT ALL ON SCHEMA lakets_cdf TO lakets_owner; SET ROLE lakets_owner")
    cdf.execute("ALTER TABLE t REPLICA IDENTITY DEFAULT")

    # Postgres refuses this for a published table without a key; no round has taken it out.
    cdf.execute("INSERT INTO t VALUES (1); UPDATE t SET id = 2; DELETE FROM t")

    cdf.execute("RESET ROLE; DROP OWNED BY lakets_owner; DROP ROLE lakets_owner")


def test_a_table_that_was_not_full_for_less_than_a_round_misses_nothing(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1)")
    cdf.feed.run_once()

    cdf.execute("ALTER TABLE t REPLICA IDENTITY DEFAULT; INSERT INTO t VALUES (2)")
    cdf.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    cdf.feed.run_once()
    cdf.execute("INSERT INTO t VALUES (3)")
    cdf.feed.run_once()

    assert [row["id"] for row in cdf.history("t")] == [1, 1, 2, 3]


def test_a_table_that_becomes_full_is_begun_with_the_rows_it_has(cdf: Cdf) -> None:
    cdf.shadow("t")
    cdf.execute("INSERT INTO t VALUES (1, 'a')")
    cdf.feed.run_once()
    cdf.execute("ALTER TABLE t REPLICA IDENTITY DEFAULT")
    cdf.feed.run_once()
    cdf.execute(
        "INSERT INTO t VALUES (2, 'b'); DELETE FROM t WHERE id = 1; ALTER TABLE t REPLICA IDENTITY FULL"
    )

    cdf.feed.run_once()

    status = cdf.status("t")
    assert status is not None
    assert status.status == "STREAMING"
    assert cdf.changes("t") == [("insert", 1, "a"), ("insert", 2, "b")]


def test_any_role_may_read_where_the_feed_stands(cdf: Cdf) -> None:
    cdf.feed.run_once()
    cdf.execute("DROP ROLE IF EXISTS lakets_reader; CREATE ROLE lakets_reader; SET ROLE lakets_reader")

    assert cdf.execute("SELECT * FROM wal2delta.tables").fetchall() == []

    cdf.execute("RESET ROLE; DROP ROLE lakets_reader")


def test_a_right_that_was_taken_away_is_not_given_back(cdf: Cdf) -> None:
    cdf.feed.run_once()
    cdf.execute("REVOKE USAGE ON SCHEMA wal2delta FROM PUBLIC; REVOKE SELECT ON wal2delta.tables FROM PUBLIC")
    cdf.feed.close()
    cdf.feed.run_once()

    assert not cdf.one("SELECT has_schema_privilege('pg_monitor', 'wal2delta', 'USAGE')")
