"""Mirrors of LakeTS 0.1.3 are compared beside writers: no row counts as durable that is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.engine import install_script
from tests.stage import FEED, HandFeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.isolation.conftest import Session
    from tests.stage import Stage

    Sessions = Callable[[str], Session]

WORLD = Path(__file__).parents[1] / "sql" / "world_01.sql"
GAPS = "SELECT count(*) FROM lakets._mirror_gap WHERE shadow = 'lakets_cdf._shadow_metrics'::regclass"
#: A chunk with rows that 0.1.3 did not mirror, and one of these rows.
CHUNK = (
    "(SELECT chunk_name FROM lakets._chunk_metadata WHERE chronotable_id = 1"
    " AND range_end <= now() - interval '5 days' ORDER BY range_start DESC LIMIT 1)"
)
BEGIN = f"(SELECT range_start FROM lakets._chunk_metadata WHERE chunk_name = {CHUNK})"
OLD = f"SELECT ts, device FROM metrics WHERE ts >= {BEGIN} AND device LIKE 'd_' ORDER BY ts LIMIT 1"
ROW = f"(ts, device) = ({OLD})"
TIER = f"SELECT lakets.tier_chunk({CHUNK})"
MIRRORED = "SELECT * FROM lakets_cdf._shadow_metrics"
MISSING = f"SELECT count(*) FROM (SELECT * FROM metrics WHERE {ROW} EXCEPT ALL {MIRRORED}) AS d"


@pytest.fixture(scope="module")
def moved_in(postgres: EmbeddedPostgres, template_01: str) -> str:
    """Return the name of a database that was used with 0.1.3, and has our engine now."""
    name = "lakets_01_moved"
    with psycopg.connect(postgres.ensure_database(name, template=template_01), autocommit=True) as conn:
        conn.execute(WORLD.read_text().encode())
        conn.execute(install_script().encode())
    return name


@pytest.fixture
def database(postgres: EmbeddedPostgres, moved_in: str) -> Iterator[str]:
    """Yield the conninfo of such a database."""
    yield postgres.ensure_database("moved", template=moved_in)
    postgres.drop_database("moved")


@pytest.fixture
def feed(database: str) -> Iterator[HandFeed]:
    """Stream the shadow of metrics, moved by hand."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(FEED.encode())
    feed = HandFeed(database, "_shadow_metrics")
    yield feed
    feed.close()


def prove(stage: Stage, feed: HandFeed) -> None:
    """Let tiering read the position of the feed."""
    stage.run("SELECT count(*) FROM lakets._get_chunks_to_tier('metrics')")
    feed.flush()
    stage.run("UPDATE wal2delta.tables SET committed_lsn = pg_current_wal_insert_lsn()")


# compare/writer, the writer first: he may change rows that the shadow lacks.
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_chunk_is_compared_after_its_writer(
    stage: Stage, feed: HandFeed, sessions: Sessions, end: str
) -> None:
    prove(stage, feed)
    writer, job = sessions("writer"), sessions("job")

    writer.begin()
    writer.run(f"INSERT INTO metrics SELECT ts, 'late', 5 FROM metrics WHERE {ROW}")
    job.run("SET lock_timeout = '10s'")
    job.start(f"BEGIN; {TIER}")
    job.wait_blocked_by(writer)
    writer.run(end)
    job.finish()
    job.commit()

    assert stage.value(MISSING) == 0
    assert stage.value("SELECT count(*) FROM lakets_cdf._shadow_metrics WHERE device = 'late'") == (
        end == "COMMIT"
    )


# compare/writer, many chunks: a writer of one may write the others next: no wait at first.
def test_a_chunk_that_is_being_written_is_compared_last(
    stage: Stage, feed: HandFeed, sessions: Sessions
) -> None:
    prove(stage, feed)
    stage.set_lock_timeout("10s", "compare%")
    writer, job = sessions("writer"), sessions("job")
    compare = "SELECT lakets.compare_chunks('metrics', p_max_chunks => 1000)"
    doubts = (
        "SELECT cardinality(lakets._doubtful_chunks(reg))"
        " FROM lakets._chronotable_registry AS reg WHERE id = 1"
    )
    in_doubt = stage.value(doubts)

    writer.begin()
    writer.run(f"INSERT INTO metrics SELECT ts, 'late', 5 FROM metrics WHERE {ROW}")
    assert job.value(compare) == in_doubt - 1
    job.start(compare)
    job.wait_blocked_by(writer)
    writer.commit()
    job.finish()

    assert stage.value(doubts) == 0
    assert (
        stage.value("SELECT count(*) FROM (TABLE metrics EXCEPT ALL TABLE lakets_cdf._shadow_metrics) AS d")
        == 0
    )


# compare/writer, the job first: the writer's change comes on top of what was compared.
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_writer_of_a_row_that_is_being_added_loses_nothing(
    stage: Stage, feed: HandFeed, sessions: Sessions, isolation: str
) -> None:
    prove(stage, feed)
    writer, job = sessions("writer"), sessions("job")
    writer.begin(isolation)
    writer.run("SELECT 1")  # a snapshot from before, if it is kept

    job.begin()
    assert job.value(TIER) is False
    writer.start(f"UPDATE metrics SET value = 77.7 WHERE {ROW}")
    writer.wait_blocked_by(job)
    job.commit()
    writer.finish()
    writer.commit()

    # Either the mirror is right, or it is known that it may not be: an old snapshot does not show
    # the row.
    gaps = stage.value(GAPS)
    assert stage.value(MISSING) == 0
    assert gaps == (1 if isolation == "REPEATABLE READ" else 0)
    feed.flush()
    stage.run("UPDATE wal2delta.tables SET committed_lsn = pg_current_wal_insert_lsn()")
    assert stage.value(TIER) is (isolation == "READ COMMITTED")


# The doubt is noted in a snapshot that shows an older one, which has been mended since.
def test_a_gap_that_an_old_snapshot_has_is_noted_anew(
    stage: Stage, feed: HandFeed, sessions: Sessions
) -> None:
    stage.run("INSERT INTO lakets._mirror_gap VALUES ('lakets_cdf._shadow_metrics')")
    writer = sessions("writer")
    writer.begin("REPEATABLE READ")
    assert writer.value(GAPS) == 1

    prove(stage, feed)
    assert stage.value(GAPS) == 0
    writer.run(f"UPDATE metrics SET value = 77.7 WHERE {ROW}")
    writer.commit()

    assert stage.value(GAPS) == 1


# What is added to the shadow is not yet flushed, though the feed has passed all that was there.
def test_what_the_comparing_added_must_be_flushed_too(stage: Stage, feed: HandFeed) -> None:
    prove(stage, feed)

    assert stage.value(TIER) is False
    assert stage.value(TIER) is False
    assert len(feed.unflushed()) >= 1
    feed.flush()
    stage.run("UPDATE wal2delta.tables SET committed_lsn = pg_current_wal_insert_lsn()")

    assert stage.value(TIER) is True
    assert stage.value(MISSING) == 0


# begin/writer: the doubt is written down while nobody writes, so that each later miss is noted.
def test_the_comparing_of_a_table_begins_when_its_writers_have_ended(
    stage: Stage, feed: HandFeed, sessions: Sessions
) -> None:
    stage.run("INSERT INTO lakets._mirror_gap VALUES ('lakets_cdf._shadow_metrics')")
    stage.set_lock_timeout("10s")
    writer, job = sessions("writer"), sessions("job")

    writer.begin()
    writer.run("INSERT INTO metrics VALUES (now(), 'now', 1)")
    job.start("SELECT count(*) FROM lakets._get_chunks_to_tier('metrics')")
    job.wait_blocked_by(writer)
    writer.commit()

    job.finish()
    assert stage.value(GAPS) == 0
    assert stage.value(
        f"SELECT lakets._is_in_doubt(c) FROM lakets._chunk_metadata AS c WHERE chunk_name = {CHUNK}"
    )


# Two jobs on two chunks, and a new chunk made meanwhile, which was never in doubt.
def test_two_jobs_compare_two_chunks_one_after_the_other(
    stage: Stage, feed: HandFeed, sessions: Sessions
) -> None:
    prove(stage, feed)
    stage.set_lock_timeout("10s")
    one, two = sessions("one"), sessions("two")
    other = CHUNK.replace("5 days", "7 days")

    one.begin()
    one.run(TIER)
    two.start(f"SELECT lakets.tier_chunk({other})")
    two.wait_blocked_by(one)
    stage.run("SELECT lakets._ensure_partitions(1, p_future_count => 9)")
    one.commit()
    two.finish()

    doubts = "SELECT array_agg(lakets._is_in_doubt(c)) FROM lakets._chunk_metadata AS c WHERE {}"
    assert stage.value(doubts.format(f"chunk_name IN ({CHUNK}, {other})")) == [False, False]
    assert not any(
        stage.value(doubts.format("chronotable_id = 1 AND range_start > now() + interval '5 days'"))
    )
