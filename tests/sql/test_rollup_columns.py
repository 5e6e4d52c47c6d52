"""A RollUp whose source's, or own, columns change follows, or stops and names the column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import Raises, Stage

SUMS = (
    "SELECT lakets.time_bucket('1 hour', at) AS bucket, kind, sum(v) AS total, max(v) AS top, count(*) AS n"
    " FROM metrics GROUP BY 1, 2"
)


@pytest.fixture
def sums(stage: Stage) -> Stage:
    stage.once(make_sums)
    return stage


def make_sums(stage: Stage) -> None:
    stage.run("CREATE TABLE metrics (at timestamptz, kind text, v integer, unused integer)")
    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '1 day')")
    stage.run(
        "INSERT INTO metrics SELECT '2024-01-01'::timestamptz + n * interval '20 min', 'k', n"
        " FROM generate_series(1, 20) AS n"
    )
    stage.rollup("q", query=SUMS)


@pytest.mark.parametrize("new", ["numeric(10,2)", "bigint", "double precision"])
def test_type_of_a_column_that_the_query_sums_is_asked_for(sums: Stage, raises: Raises, new: str) -> None:
    sums.run(f"ALTER TABLE metrics ALTER COLUMN v TYPE {new}")
    sums.run("INSERT INTO metrics VALUES ('2024-01-01 01:10+00', 'k', 0.75)")

    with raises("P0001", match="Column total of public._rollup_q is bigint, but the query"):
        sums.refresh("q")


def test_rollup_goes_on_when_its_own_columns_have_the_types_again(sums: Stage) -> None:
    # What the rewrite changed is in no change log: all that is resident is aggregated again.
    sums.run("ALTER TABLE metrics ALTER COLUMN v TYPE numeric(10,2) USING v * 1.5")
    sums.run("ALTER TABLE _rollup_q ALTER COLUMN total TYPE numeric, ALTER COLUMN top TYPE numeric")

    sums.refresh("q")

    assert sums.difference("q") == []
    assert sums.value("SELECT max(top) FROM _rollup_q") == 30


def test_wider_text_is_asked_for_before_a_value_does_not_fit(stage: Stage, raises: Raises) -> None:
    stage.run("CREATE TABLE metrics (at timestamptz, kind varchar(3), v integer)")
    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '1 day')")
    stage.rollup("q", query=SUMS)
    stage.run("ALTER TABLE metrics ALTER COLUMN kind TYPE varchar(9)")

    with raises("P0001", match=r"Column kind .* is character varying\(3\)"):
        stage.refresh("q")


def test_column_that_the_query_does_not_read_may_change(sums: Stage) -> None:
    sums.run("ALTER TABLE metrics DROP COLUMN unused")
    sums.run("ALTER TABLE metrics ADD COLUMN more text")
    before = sums.run("SELECT ctid, xmin FROM _rollup_q")

    assert sums.refresh("q")
    assert sums.run("SELECT ctid, xmin FROM _rollup_q") == before


def test_column_that_the_query_reads_and_that_is_gone_is_named(sums: Stage, raises: Raises) -> None:
    sums.run("ALTER TABLE metrics DROP COLUMN v")

    with raises("P0001", match="Column v of public.metrics, which the query of RollUp q reads"):
        sums.refresh("q")


def test_column_made_anew_under_the_same_name_is_read_anew(sums: Stage) -> None:
    sums.run("ALTER TABLE metrics DROP COLUMN v")
    sums.run("ALTER TABLE metrics ADD COLUMN v integer DEFAULT 7")

    sums.refresh("q")

    assert sums.difference("q") == []


def test_rollup_that_lost_a_column_is_not_written_by_position(sums: Stage, raises: Raises) -> None:
    sums.run("ALTER TABLE _rollup_q DROP COLUMN top")
    sums.run("UPDATE metrics SET v = v + 1")

    with raises("P0001", match="public._rollup_q has no column top"):
        sums.refresh("q")


def test_rollup_whose_lost_column_is_back_is_filled_again(sums: Stage) -> None:
    sums.run("ALTER TABLE _rollup_q DROP COLUMN top")
    sums.run("ALTER TABLE _rollup_q ADD COLUMN top integer")
    sums.refresh("q")

    query, columns = (
        sums.value("SELECT query_text FROM lakets._rollup_registry"),
        "bucket, kind, total, top, n",
    )
    kept = f"SELECT {columns} FROM _rollup_q"
    assert sums.run(f"({kept}) EXCEPT (SELECT {columns} FROM ({query}) AS q)") == []
    assert sums.value("SELECT count(*) FROM _rollup_q WHERE top IS NULL") == 0


def test_rollup_that_gained_a_column_is_written_by_name(sums: Stage) -> None:
    sums.run("ALTER TABLE _rollup_q ADD COLUMN note text DEFAULT 'mine'")
    sums.run("INSERT INTO metrics VALUES ('2024-01-01 01:10+00', 'k', 100)")

    sums.refresh("q")

    assert sums.value("SELECT note || top FROM _rollup_q WHERE top = 100") == "mine100"
