"""An install over LakeTS 0.1.x beside an open writer: the second waits, and no change is lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.engine import install_script
from tests.isolation.conftest import PATIENCE_SECONDS
from tests.stage import FEED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.isolation.conftest import Session
    from tests.stage import Stage

    Sessions = Callable[[str], Session]

WORLD = Path(__file__).parents[1] / "sql" / "world_01.sql"
WRITE = (
    "INSERT INTO metrics VALUES (now() - interval '1 day', 'new', 7);"
    " UPDATE metrics SET value = 8 WHERE device = 'new'"
)


@pytest.fixture(scope="module")
def lived_in(postgres: EmbeddedPostgres, template_01: str) -> str:
    """Return the name of a database that was used with 0.1.x."""
    name = "lakets_01_in_use"
    with psycopg.connect(postgres.ensure_database(name, template=template_01), autocommit=True) as conn:
        conn.execute(WORLD.read_text().encode())
    return name


@pytest.fixture
def database(postgres: EmbeddedPostgres, lived_in: str) -> Iterator[str]:
    """Yield the conninfo of such a database, in the place of one with our engine."""
    yield postgres.ensure_database("in_use", template=lived_in)
    postgres.drop_database("in_use")


@pytest.fixture(scope="module")
def script() -> str:
    """Return the install, without its COMMIT, and as patient as the tests."""
    timeout = "SET LOCAL lock_timeout = '2s'"
    head, found, _ = install_script().rpartition("COMMIT;")
    assert found
    assert timeout in head
    return head.replace(timeout, f"SET LOCAL lock_timeout = '{PATIENCE_SECONDS}s'")


def assert_tracked(stage: Stage) -> None:
    """Check that writes are mirrored from now on, and absorbed by a RollUp refreshed before."""
    stage.run("SELECT lakets.enable_sync('metrics')")
    stage.refresh("hourly")
    stage.run("UPDATE metrics SET value = value + 1 WHERE device IN ('new', 'd1')")
    stage.run("DELETE FROM metrics WHERE device = 'd2'")
    stage.refresh("hourly")

    table, shadow = "SELECT * FROM metrics", "SELECT * FROM lakets_cdf._shadow_metrics"
    assert stage.run(f"({table} EXCEPT ALL {shadow}) UNION ALL ({shadow} EXCEPT ALL {table})") == []
    # The oldest chunk is dropped: its buckets keep their values.
    kept = stage.value("SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'dropped'")
    assert [row for row in stage.difference("hourly") if row[1] >= kept] == []


# upgrade/writer, the writer first: his triggers are about to be dropped.
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_an_install_over_01_waits_for_an_open_writer(
    stage: Stage, sessions: Sessions, script: str, end: str
) -> None:
    writer, installer = sessions("writer"), sessions("installer")

    writer.begin()
    writer.run(WRITE)
    installer.start(script)
    installer.wait_blocked_by(writer)
    writer.run("UPDATE metrics SET value = 9 WHERE device = 'new'")
    writer.run(end)
    installer.finish()
    installer.commit()

    written = [(9,)] if end == "COMMIT" else []
    assert stage.run("SELECT value FROM metrics WHERE device = 'new'") == written
    # What 0.1.x mirrored is not known to be all: no chunk of then is taken for compared.
    assert stage.value(
        "SELECT bool_and(lakets._is_in_doubt(chunk)) FROM lakets._chunk_metadata AS chunk"
        " WHERE chronotable_id = 1 AND status <> 'dropped'"
    )
    assert_tracked(stage)


# upgrade/writer, the install first: the statement was planned with the triggers of 0.1.x.
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_writer_that_comes_during_an_install_over_01_is_tracked_by_ours(
    stage: Stage, sessions: Sessions, script: str, isolation: str
) -> None:
    writer, installer = sessions("writer"), sessions("installer")
    add = "EXECUTE add('new')"
    writer.run("PREPARE add AS INSERT INTO metrics VALUES (now() - interval '1 day', $1, 7)")
    writer.begin()
    writer.run(add)
    writer.rollback()

    writer.begin(isolation)
    writer.run("SELECT 1")
    installer.run(script)
    writer.start(add)
    writer.wait_blocked_by(installer)
    installer.commit()
    writer.finish()
    writer.run("UPDATE metrics SET value = 8 WHERE device = 'new'")
    writer.commit()

    assert stage.run("SELECT value FROM lakets_cdf._shadow_metrics WHERE device = 'new'") == [(8,)]
    assert stage.value("SELECT count(*) FROM lakets._change_log WHERE chronotable_id = 1") == 2
    assert_tracked(stage)


def test_a_writer_goes_on_with_01_when_the_install_is_given_up(
    stage: Stage, sessions: Sessions, script: str
) -> None:
    writer, installer = sessions("writer"), sessions("installer")

    installer.run(script)
    writer.start("INSERT INTO metrics VALUES (now() - interval '1 day', 'new', 7)")
    writer.wait_blocked_by(installer)
    installer.rollback()
    writer.finish()

    assert stage.value("SELECT to_regclass('lakets.migration')") is None
    assert stage.run("SELECT value FROM lakets_cdf._shadow_metrics WHERE device = 'new'") == [(7,)]


def test_a_writer_of_two_tables_is_not_ended_by_an_install(
    stage: Stage, sessions: Sessions, script: str
) -> None:
    # The race: the install has one table and wants the other, the writer has that and wants the
    # first.
    writer, installer = sessions("writer"), sessions("installer")
    writer.run("SET deadlock_timeout = '1s'")
    for mine, other in (("plant.scratch", "metrics"), ("metrics", "plant.scratch")):
        writer.begin()
        writer.run(f"LOCK TABLE ONLY {mine} IN ROW EXCLUSIVE MODE")
        installer.start(script)
        installer.wait_blocked_by(writer)

        writer.run(f"LOCK TABLE ONLY {other} IN ROW EXCLUSIVE MODE")

        writer.commit()
        installer.finish()
        installer.rollback()


WRITE_METRIC = "INSERT INTO metrics VALUES (now() - %s * interval '1 minute', %s, %s)"
CACHED = (
    "SELECT value::int, (now() - last_updated) < interval '30 minutes' FROM _lvc_metrics WHERE device = %s"
)


def flush_everything(stage: Stage) -> None:
    stage.run(FEED)
    stage.run(
        "INSERT INTO wal2delta.tables"
        " SELECT lakets._shadow_relation(shadow_table_name), 'STREAMING', pg_current_wal_insert_lsn()"
        " FROM lakets._chronotable_registry WHERE sync_enabled"
        " ON CONFLICT (table_oid) DO UPDATE SET committed_lsn = excluded.committed_lsn"
    )


def tier_all(stage: Stage) -> None:
    """Tier what is due of metrics, as the job does, until all is compared, flushed and proved."""
    for _ in range(4):
        flush_everything(stage)
        stage.run("SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier('metrics')")


# upgrade/writers, before, during and after: each writes a row of 10 minutes ago, then one of 40
# minutes. With 0.1.3 that one replaces the newer one in the cache.
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_all_goes_on_the_moment_an_install_over_01_commits(
    stage: Stage, sessions: Sessions, script: str, isolation: str
) -> None:
    before, during, installer = sessions("before"), sessions("during"), sessions("installer")
    before.begin(isolation)
    before.run(WRITE_METRIC, 10, "before", 10)
    before.run(WRITE_METRIC, 40, "before", 40)
    during.begin(isolation)
    during.run("SELECT 1")

    installer.start(script)
    installer.wait_blocked_by(before)
    before.commit()
    installer.finish()
    during.start(WRITE_METRIC, 10, "during", 10)
    during.wait_blocked_by(installer)
    installer.commit()
    during.finish()
    during.run(WRITE_METRIC, 40, "during", 40)
    during.commit()
    stage.run(WRITE_METRIC, 40, "before", 41)  # an older row of a series that 0.1.3 cached
    stage.run(WRITE_METRIC, 10, "after", 10)
    stage.run(WRITE_METRIC, 40, "after", 40)

    assert {name: stage.run(CACHED, name) for name in ("before", "during", "after")} == {
        "before": [(10, True)],
        "during": [(10, True)],
        "after": [(10, True)],
    }
    assert stage.cascade() == {"hourly": True, "daily": True}
    kept = stage.value("SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'dropped'")
    for name in ("hourly", "daily"):
        assert [row for row in stage.difference(name) if row[1] >= kept] == []
    tier_all(stage)
    statuses = stage.column(
        "SELECT DISTINCT status FROM lakets._chunk_metadata"
        " WHERE chronotable_id = 1 AND range_end < now() - interval '3 days'"
    )
    assert sorted(statuses) == ["dropped", "tiered"]
    assert stage.value("SELECT count(*) FROM refresh_all() AS n WHERE n = 2") == 1


def test_what_is_written_all_through_an_install_over_01_is_nowhere_missing(
    stage: Stage, database: str
) -> None:
    # Writers that nobody steps: each row is newer than the one before, each third corrects an older
    # one.
    is_installed = threading.Event()

    def write(device: str) -> int:
        with psycopg.connect(database, autocommit=True) as conn:
            written, left = 0, 20
            while left > 0:
                left -= is_installed.is_set()
                conn.execute("INSERT INTO metrics VALUES (clock_timestamp(), %s, %s)", [device, written])
                written += 1
                if written % 3 == 0:
                    conn.execute(
                        "UPDATE metrics SET value = value + 1000 WHERE device = %s AND value = %s",
                        [device, written - 2],
                    )
        return written - 1

    with ThreadPoolExecutor(3) as pool:
        writers = {device: pool.submit(write, device) for device in ("w1", "w2", "w3")}
        try:
            stage.run(install_script().replace("lock_timeout = '2s'", "lock_timeout = '20s'"))
        finally:
            is_installed.set()
        last = {device: writer.result(60) for device, writer in writers.items()}

    cached = dict(stage.run("SELECT device, value::int % 1000 FROM _lvc_metrics WHERE device LIKE 'w_'"))
    assert cached == last
    stage.cascade()
    stage.run("SELECT lakets.refresh_rollup('hourly', true), lakets.refresh_rollup('daily', true)")
    kept = stage.value("SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'dropped'")
    for name in ("hourly", "daily"):
        assert [row for row in stage.difference(name) if row[1] >= kept] == []
    stage.run('UPDATE lakets._policy_registry SET config = config || \'{"tier_after": "-1 days"}\'')
    tier_all(stage)
    today = "SELECT * FROM {} WHERE ts >= date_trunc('day', now(), 'UTC')"
    table, shadow = today.format("metrics"), today.format("lakets_cdf._shadow_metrics")
    assert stage.run(f"({table} EXCEPT ALL {shadow}) UNION ALL ({shadow} EXCEPT ALL {table})") == []
