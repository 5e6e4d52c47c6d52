"""Rows outside every chunk: kept, reported, and moved into chunks as soon as there can be one."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.grid import at

if TYPE_CHECKING:
    from tests.grid import Ranges
    from tests.sandbox import Sandbox


def registered(db: Sandbox, table_id: int) -> Ranges:
    """Return the ranges of a table's chunks as its registry has them, in order."""
    return [
        (start, end)
        for start, end in db.run(
            "SELECT range_start, range_end FROM lakets._chunk_metadata WHERE chronotable_id = %s ORDER BY 1",
            table_id,
        )
    ]


def assert_disjoint(ranges: Ranges) -> None:
    for before, after in pairwise(ranges):
        assert before[0] < before[1] <= after[0] < after[1]


def test_rows_that_are_there_get_their_chunks_and_far_outliers_too(db: Sandbox) -> None:
    db.run("CREATE TABLE metrics (ts timestamptz)")
    db.run(
        "INSERT INTO metrics VALUES ('2024-01-01+00'), ('2024-06-01+00'), ('1969-07-20 20:17+00'),"
        " ('9998-12-31+00'), ('0002-01-01+00'), ('infinity'), ('-infinity'), (NULL), ('9999-01-01+00'),"
        " ('200000-01-01+00'), ('0044-03-15+00 BC'), ('4713-01-01+00 BC'), ('294276-12-31 23:59:59+00')"
    )

    table_id = db.value("SELECT lakets.create_chronotable('metrics', 'ts', '1 day')")

    starts = db.column("SELECT range_start FROM lakets._chunk_metadata ORDER BY 1")
    assert starts[:4] == [at(2), at(1969, 7, 20), at(2024), at(2024, 6)]
    assert starts[-1] == at(9998, 12, 31)
    assert db.value("SELECT count(*) FROM metrics_default") == 8
    assert db.value("SELECT lakets._ensure_partitions(%s)", table_id) == 0


@pytest.mark.parametrize("interval", ["7 days", "1 month", "100 years"])
def test_rows_at_the_ends_of_time_do_not_stop_the_job(db: Sandbox, interval: str) -> None:
    table_id = db.chronotable(interval=interval)
    db.run(
        "INSERT INTO metrics (ts) VALUES ('4714-11-24+00 BC'), ('294276-12-31 23:59:59.999999+00'),"
        " ('0001-01-01+00'), ('9999-12-31 23:59:59+00'), ('infinity')"
    )

    db.value("SELECT lakets._ensure_partitions(%s)", table_id)

    assert db.value("SELECT lakets._ensure_partitions(%s)", table_id) == 0
    assert db.value("SELECT count(*) FROM metrics") == 5
    assert_disjoint(registered(db, table_id))


def test_rows_outside_every_chunk_are_kept_and_reported(db: Sandbox) -> None:
    db.chronotable()

    db.run("INSERT INTO metrics (ts) VALUES ('2001-01-01'), ('infinity'), (NULL), (now())")

    assert db.value("SELECT count(*) FROM metrics") == 4
    reported = db.value(
        "SELECT metric_value FROM lakets.lakets_metrics() WHERE metric_name = 'lakets_rows_outside_chunks'"
    )
    assert reported == 3


def test_rows_outside_move_into_chunks_as_they_are(db: Sandbox) -> None:
    table_id = db.chronotable(
        "id int GENERATED ALWAYS AS IDENTITY, ts timestamptz, v numeric,"
        " w numeric GENERATED ALWAYS AS (v * 2) STORED",
        synced=True,
    )
    db.run(
        "INSERT INTO metrics (ts, v) SELECT '2001-01-01'::timestamptz + n * interval '6 hours', n"
        " FROM generate_series(1, 20) AS n"
    )
    before = db.run("TABLE metrics ORDER BY id")

    made = db.value("SELECT lakets._ensure_partitions(%s)", table_id)

    assert made == 6
    assert db.value("SELECT count(*) FROM metrics_default") == 0
    assert db.run("TABLE metrics ORDER BY id") == before
    assert db.mirror_difference() == []


def test_no_trigger_fires_for_rows_that_move(db: Sandbox) -> None:
    table_id = db.chronotable(synced=True)
    db.run(
        "CREATE TABLE note (event text); CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO note VALUES (TG_OP); RETURN NULL; END $$;"
        " CREATE TRIGGER a BEFORE DELETE ON metrics FOR EACH ROW EXECUTE FUNCTION noted();"
        " CREATE TRIGGER b AFTER INSERT OR DELETE ON metrics FOR EACH ROW EXECUTE FUNCTION noted();"
        " CREATE TRIGGER c AFTER DELETE ON metrics FOR EACH STATEMENT EXECUTE FUNCTION noted();"
        " ALTER TABLE metrics ENABLE ALWAYS TRIGGER a; ALTER TABLE metrics DISABLE TRIGGER b"
    )
    db.run("INSERT INTO metrics (ts) VALUES ('2001-01-01')")
    states = "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'metrics_default'::regclass ORDER BY 1"
    before, logged = db.run(states), db.value("SELECT count(*) FROM lakets._change_log")

    assert db.value("SELECT lakets._ensure_partitions(%s)", table_id) == 1

    assert db.value("SELECT count(*) FROM metrics_default") == 0
    assert db.run("TABLE note") == []
    assert db.run(states) == before
    assert db.value("SELECT count(*) FROM lakets._change_log") == logged


def test_many_rows_outside_are_taken_in_by_and_by(db: Sandbox) -> None:
    table_id = db.chronotable()
    db.run(
        "INSERT INTO metrics (ts) SELECT '2001-01-01'::timestamptz + n * interval '1 day'"
        " FROM generate_series(1, 130) AS n"
    )

    made = [db.value("SELECT lakets._ensure_partitions(%s)", table_id) for _ in range(3)]

    assert made == [100, 30, 0]
    assert db.value("SELECT count(*) FROM metrics_default") == 0


KEYED = "id int, ts timestamptz, value float8, PRIMARY KEY (id, ts)"
ACTIONS = ["CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", "NO ACTION"]


@pytest.mark.parametrize("action", ACTIONS)
def test_rows_that_a_foreign_key_points_at_stay_and_other_chunks_are_made(db: Sandbox, action: str) -> None:
    table_id = db.chronotable(KEYED)
    db.run(
        "CREATE TABLE note (id int, ts timestamptz,"
        f" CONSTRAINT noted FOREIGN KEY (id, ts) REFERENCES metrics ON DELETE {action})"
    )
    db.run("INSERT INTO metrics VALUES (1, '2001-01-01'), (2, '2001-01-02')")
    db.run("INSERT INTO note SELECT id, ts FROM metrics")
    before = db.run("TABLE note")
    ensure = (
        "SELECT lakets._ensure_partitions(%s, p_range_start => '2001-01-01', p_range_end => '2001-01-05')"
    )

    assert db.value(ensure, table_id) == 2
    with db.refused("raise_exception", match=r"because of: foreign key noted on public.note\."):
        db.value(ensure, table_id)

    assert db.run("TABLE note") == before
    assert db.value("SELECT count(*) FROM metrics_default") == 2
    db.run("ALTER TABLE note DROP CONSTRAINT noted")
    assert db.value(ensure, table_id) == 2
    assert db.run("TABLE note") == before


def test_a_foreign_key_of_the_table_to_itself_keeps_rows_where_they_are(db: Sandbox) -> None:
    table_id = db.chronotable(KEYED + ", before timestamptz")
    db.run(
        "ALTER TABLE metrics ADD CONSTRAINT chain"
        " FOREIGN KEY (id, before) REFERENCES metrics ON DELETE CASCADE"
    )
    db.run("INSERT INTO metrics VALUES (1, '2001-01-01', 1, NULL), (1, now(), 1, '2001-01-01')")

    with db.refused("raise_exception", match="chain on public.metrics"):
        db.value("SELECT lakets._ensure_partitions(%s)", table_id)

    assert db.value("SELECT count(*) FROM metrics") == 2


def test_chunks_are_made_while_a_foreign_key_points_at_the_table(db: Sandbox) -> None:
    table_id = db.chronotable(KEYED)
    db.run(
        "CREATE TABLE note (id int, ts timestamptz,"
        " FOREIGN KEY (id, ts) REFERENCES metrics ON DELETE CASCADE)"
    )

    made = db.value("SELECT lakets._ensure_partitions(%s, p_future_count => 9)", table_id)

    assert made == 6
    assert db.value("SELECT lakets._ensure_partitions(%s, p_future_count => 9)", table_id) == 0
