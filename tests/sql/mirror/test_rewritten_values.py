"""Values that change without a statement that a trigger sees are compared and rolled up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.mirror.scene import missed, problem

if TYPE_CHECKING:
    from tests.sandbox import Sandbox
    from tests.stage import Stage

REWRITES = {
    "computed anew": "ALTER TABLE metrics ALTER COLUMN a TYPE integer USING a * 1000",
    "to another type and back": "ALTER TABLE metrics ALTER COLUMN a TYPE text USING a || '0';"
    " ALTER TABLE metrics ALTER COLUMN a TYPE integer USING a::integer",
    "dropped and added": "ALTER TABLE metrics DROP COLUMN a;"
    " ALTER TABLE metrics ADD COLUMN a integer DEFAULT 7",
    "names swapped": "ALTER TABLE metrics RENAME a TO c; ALTER TABLE metrics RENAME b TO a;"
    " ALTER TABLE metrics RENAME c TO b",
}
HARMLESS = {
    "not null": "ALTER TABLE metrics ALTER COLUMN a SET NOT NULL",
    "default": "ALTER TABLE metrics ALTER COLUMN a SET DEFAULT 3",
    "statistics": "ALTER TABLE metrics ALTER COLUMN a SET STATISTICS 50; ANALYZE metrics",
    "check": "ALTER TABLE metrics ADD CHECK (a > 0)",
    "index": "CREATE INDEX ON metrics (a)",
    "chunks": "SELECT lakets._ensure_partitions(id, p_range_start => '2024-02-01',"
    " p_range_end => '2024-02-03') FROM lakets._chronotable_registry",
}
SUM = "SELECT lakets.time_bucket('1 day', ts) AS bucket, sum(a) AS total FROM {}.metrics GROUP BY 1"


@pytest.fixture(params=["key", "no key"])
def filled(db: Sandbox, request: pytest.FixtureRequest) -> Sandbox:
    """Create a table with rows in chunks."""
    key = ", PRIMARY KEY (ts, a)" if request.param == "key" else ""
    db.run(f"CREATE TABLE metrics (ts timestamptz, a integer, b integer{key})")
    db.run("SELECT lakets.create_chronotable('metrics', 'ts', '1 day', %s)", db.schema)
    db.run(
        "SELECT lakets._ensure_partitions(id, p_range_start => '2024-01-01', p_range_end => '2024-01-05')"
        " FROM lakets._chronotable_registry"
    )
    db.run(
        "INSERT INTO metrics SELECT '2024-01-01'::timestamptz + n * interval '6 hours', n, 2 * n"
        " FROM generate_series(1, 12) AS n"
    )
    return db


@pytest.mark.parametrize("rewrite", REWRITES)
def test_rewritten_values_are_in_doubt_until_they_are_compared(filled: Sandbox, rewrite: str) -> None:
    filled.sync()
    assert problem(filled) is None

    filled.run(REWRITES[rewrite])

    assert problem(filled) is not None
    while filled.value("SELECT lakets.compare_chunks('metrics', %s)", filled.schema):
        pass
    assert problem(filled) is None
    assert filled.mirror_difference() == []
    filled.run("UPDATE metrics SET b = b + 1; INSERT INTO metrics VALUES ('2024-01-02', 99, 99)")
    assert filled.mirror_difference() == []
    assert missed(filled) == 0


@pytest.mark.parametrize("rewrite", REWRITES)
def test_the_partition_job_lets_rollups_take_in_rewritten_values(stage: Stage, rewrite: str) -> None:
    # In transactions of their own: what a RollUp's own transaction wrote is never absorbed.
    stage.run("CREATE TABLE metrics (ts timestamptz, a integer, b integer)")
    stage.run(
        "INSERT INTO metrics SELECT '2024-01-01'::timestamptz, n, 2 * n FROM generate_series(1, 9) AS n"
    )
    stage.run("SELECT lakets.create_chronotable('metrics', 'ts', '1 day')")
    stage.rollup("daily", every="1 day", query=SUM.format("public"))
    stage.refresh("daily")
    assert stage.difference("daily") == []

    stage.run(REWRITES[rewrite])

    stage.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")
    stage.refresh("daily")
    assert stage.difference("daily") == []


@pytest.mark.parametrize("change", HARMLESS)
def test_other_changes_of_the_table_raise_no_doubt(filled: Sandbox, change: str) -> None:
    filled.sync()

    filled.run(HARMLESS[change])

    filled.run("SELECT lakets.compare_chunks('metrics', %s)", filled.schema)
    assert missed(filled) == 0
    assert problem(filled) is None
