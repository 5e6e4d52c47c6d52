"""An install over LakeTS 0.1.x beside an open writer: whoever comes second waits, and no change is lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.engine import install_script
from tests.isolation.conftest import PATIENCE_SECONDS

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
    """Return the name of a database that has lived with 0.1.x."""
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
    """See that what is written is mirrored from now on, and absorbed by a RollUp refreshed before."""
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
    # The race: the install has one table and wants the other, the writer has that and wants the first.
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
