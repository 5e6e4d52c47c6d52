"""RollUps that read RollUps, and what happens to them when one fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import Raises, Stage


def test_change_climbs_through_three_levels_in_one_cascade(layered: Stage) -> None:
    layered.run("UPDATE metrics SET value = 1000 WHERE id = 5")

    done = layered.cascade("daily")

    assert done == {"hourly": True, "daily": True, "weekly": True}
    assert [layered.difference(name) for name in ("hourly", "daily", "weekly")] == [[], [], []]


def test_cascade_of_one_rollup_leaves_others_alone(layered: Stage) -> None:
    layered.rollup("aside")

    assert layered.cascade("weekly") == {"hourly": True, "daily": True, "weekly": True}


def test_diamond_is_right_after_one_cascade(layered: Stage) -> None:
    layered.rollup(
        "busiest",
        every="1 day",
        query="SELECT lakets.time_bucket('1 day', bucket) AS bucket, max(total) AS top"
        " FROM _rollup_hourly GROUP BY 1",
    )
    layered.rollup(
        "both",
        every="1 day",
        query="SELECT d.bucket, d.total, b.top FROM _rollup_daily d JOIN _rollup_busiest b USING (bucket)",
    )
    layered.run("INSERT INTO metrics VALUES (99, '2024-01-03 05:00+00', 50), (99, '2024-01-19 05:00+00', 50)")
    layered.run("DELETE FROM metrics WHERE id = 4")

    layered.cascade()

    assert layered.difference("both") == []
    assert layered.column("SELECT refresh_order FROM lakets.show_rollup_dag() ORDER BY rollup_name") == [
        3,
        2,
        2,
        1,
        3,
    ]


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        (
            "lakets.time_bucket('1 hour', at) + interval '1 hour'",
            "date_trunc('day', bucket - interval '1 hour')",
        ),
        ("lakets.time_bucket('2 hours', at) AT TIME ZONE 'Asia/Kolkata'", "date_trunc('hour', bucket)"),
        ("lakets.time_bucket('1 hour', at) AT TIME ZONE 'Europe/Berlin'", "date_trunc('day', bucket)"),
        ("date_trunc('day', at, 'Europe/Berlin')", "(bucket AT TIME ZONE 'Europe/Berlin')::date"),
        ("date_trunc('hour', at, 'Europe/Berlin')", "date_trunc('day', bucket, 'Europe/Berlin')"),
        (
            "date_trunc('day', at AT TIME ZONE 'Europe/Berlin') AT TIME ZONE 'Europe/Berlin'",
            "(bucket AT TIME ZONE 'Europe/Berlin')::date",
        ),
        (
            "date_trunc('hour', at AT TIME ZONE 'Europe/Berlin') AT TIME ZONE 'Europe/Berlin'",
            "bucket + interval '1 hour'",
        ),
    ],
)
def test_label_above_is_made_from_a_label_below(stage: Stage, lower: str, upper: str) -> None:
    stage.table(rows=False)
    stage.rollup(
        "below", every="1 day", query=f"SELECT {lower} AS bucket, count(*) AS n FROM metrics GROUP BY 1"
    )
    stage.rollup(
        "above", every="1 day", query=f"SELECT {upper} AS day, sum(n) AS n FROM _rollup_below GROUP BY 1"
    )

    differences = []
    for place, moment in enumerate(
        ("03-30 23:30", "03-31 00:30", "03-31 01:30", "10-26 10:00", "10-27 00:30")
    ):
        stage.run(f"INSERT INTO metrics VALUES ({place}, '2024-{moment}+00', 1)")
        stage.cascade()
        differences.append(stage.difference("above"))

    assert differences == [[]] * 5


def test_rollup_of_a_table_and_a_rollup_follows_both(layered: Stage) -> None:
    layered.rollup(
        "share",
        every="1 hour",
        query="SELECT lakets.time_bucket('1 hour', m.at) AS bucket, m.id, sum(value) AS v, max(h.total) AS t"
        " FROM metrics m JOIN _rollup_hourly h"
        " ON h.bucket = lakets.time_bucket('1 hour', m.at) GROUP BY 1, 2",
    )
    layered.run("INSERT INTO metrics VALUES (99, '2024-01-03 12:00+00', 50)")

    layered.cascade()

    assert layered.difference("share") == []
    assert layered.run(
        "SELECT source_table, depends_on_names FROM lakets.show_rollups()"
        " JOIN lakets.show_rollup_dag() ON rollup_name = name WHERE name = 'share'"
    ) == [("public.metrics", ["hourly"])]


def test_invalidating_the_lowest_climbs(layered: Stage) -> None:
    layered.run("UPDATE _rollup_hourly SET total = -1")
    layered.run("SELECT lakets.invalidate_rollup_range('hourly', '2024-01-01', '2024-01-15')")

    layered.cascade()

    assert [layered.difference(name) for name in ("hourly", "daily", "weekly")] == [[], [], []]


# Failure


@pytest.fixture
def warnings(stage: Stage) -> list[str]:
    said: list[str] = []
    stage.conn.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    stage.run("SET client_min_messages = warning")
    return said


@pytest.fixture
def broken(layered: Stage) -> Stage:
    """Let daily fail, and make hourly's sibling and something to do."""
    layered.once(break_daily)
    return layered


def break_daily(stage: Stage) -> None:
    stage.rollup("aside")
    stage.run("ALTER TABLE _rollup_daily ADD CONSTRAINT small CHECK (total < 100)")
    stage.run("UPDATE metrics SET value = 100 WHERE id = 5")


def test_failing_rollup_takes_down_only_what_depends_on_it(broken: Stage) -> None:
    done = broken.cascade()

    assert done == {"aside": True, "hourly": True, "daily": False, "weekly": False}
    assert (broken.difference("hourly"), broken.difference("aside")) == ([], [])


def test_failing_rollup_and_what_is_skipped_for_it_are_told(broken: Stage, warnings: list[str]) -> None:
    broken.cascade()

    assert len(warnings) == 2
    assert warnings[0].startswith("RollUp daily failed: ")
    assert "small" in warnings[0]
    assert warnings[1] == "RollUp weekly is skipped: it depends on one that failed."


def test_failed_rollup_keeps_its_rows_and_makes_up_for_it_later(broken: Stage) -> None:
    before = broken.totals("daily")
    broken.cascade()
    after = broken.totals("daily")
    broken.run("ALTER TABLE _rollup_daily DROP CONSTRAINT small")

    broken.cascade()

    assert after == before
    assert [broken.difference(name) for name in ("daily", "weekly")] == [[], []]


def test_refresh_of_one_failing_rollup_raises(broken: Stage, raises: Raises) -> None:
    broken.refresh("hourly")

    with raises("23514"):
        broken.refresh("daily")


def test_circle_is_refused_and_named(layered: Stage, raises: Raises) -> None:
    layered.run(
        "UPDATE lakets._rollup_registry AS d SET depends_on = ARRAY[w.id]"
        " FROM lakets._rollup_registry AS w WHERE w.name = 'weekly' AND d.name = 'daily'"
    )

    with raises("P0001", match="daily, weekly"):
        layered.cascade()
