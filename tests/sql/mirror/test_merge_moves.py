"""A MERGE that moves rows to other chunks is noted, however it is sent; an UPDATE is mirrored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.mirror.scene import missed, problem

if TYPE_CHECKING:
    from tests.sandbox import Sandbox
    from tests.stage import Stage

MERGE = (
    "MERGE INTO metrics AS m USING (VALUES (1)) AS s (id) ON m.id = s.id"
    " WHEN MATCHED THEN UPDATE SET ts = m.ts + interval '1 day'"
)
UPDATE = "UPDATE metrics SET ts = ts + interval '1 day' WHERE id = 1"
# How a statement reaches Postgres.
WAYS = {
    "alone": "{}",
    "after a comment": "/* update */ {}",
    "with others": "SELECT 1; {}; SELECT 2",
    "in a block": "DO $$ BEGIN {}; END $$",
    "as text": "DO $$ BEGIN EXECUTE $sql${}$sql$; END $$",
    "in a function": "CREATE FUNCTION pg_temp.do_update() RETURNS void LANGUAGE plpgsql AS $$BEGIN {}; END$$;"
    " SELECT pg_temp.do_update()",
    "in a function in SQL": "CREATE FUNCTION pg_temp.do_update() RETURNS void LANGUAGE sql AS $$ {} $$;"
    " SELECT pg_temp.do_update()",
    "prepared": "PREPARE do_update AS {}; EXECUTE do_update; DEALLOCATE do_update",
}
UNKNOWN = ("in a function in SQL", "prepared")


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_a_merge_moves_are_noted_and_compared(either: Sandbox, way: str) -> None:
    either.run(WAYS[way].format(MERGE))

    assert missed(either) == 1
    assert problem(either) is not None
    either.sync()
    assert either.mirror_difference() == []
    assert problem(either) is None


@pytest.mark.parametrize("way", [way for way in WAYS if way not in UNKNOWN])
def test_rows_that_an_update_moves_are_mirrored(either: Sandbox, way: str) -> None:
    either.run(WAYS[way].format(UPDATE))

    assert either.mirror_difference() == []
    assert missed(either) == 0


def test_a_merge_that_leaves_the_time_alone_is_mirrored(either: Sandbox) -> None:
    either.run(MERGE.replace("ts = m.ts + interval '1 day'", "v = 'merged'"))

    assert either.mirror_difference() == []
    assert missed(either) == 0


def test_an_upsert_that_sets_the_time_is_mirrored(db: Sandbox) -> None:
    db.chronotable("id int, ts timestamptz, v text, PRIMARY KEY (id, ts)", synced=True)
    insert = "INSERT INTO metrics VALUES (1, '2024-01-01', 'a')"
    db.run(insert)

    db.run(f"{insert} ON CONFLICT (id, ts) DO UPDATE SET ts = excluded.ts, v = 'b'")

    assert db.mirror_difference() == []
    assert missed(db) == 0


def test_rollups_take_in_rows_that_a_merge_moves(stage: Stage) -> None:
    stage.run("CREATE TABLE metrics (id integer, ts timestamptz, v integer)")
    stage.run("INSERT INTO metrics VALUES (1, '2024-01-01', 1), (2, '2024-01-02', 2)")
    stage.run("SELECT lakets.create_chronotable('metrics', 'ts', '1 day')")
    query = "SELECT lakets.time_bucket('1 day', ts) AS bucket, sum(v) AS v FROM public.metrics GROUP BY 1"
    stage.rollup("daily", every="1 day", query=query)
    stage.refresh("daily")

    stage.run(MERGE)

    stage.refresh("daily")
    assert stage.run("SELECT v FROM _rollup_daily") == [(3,)]
