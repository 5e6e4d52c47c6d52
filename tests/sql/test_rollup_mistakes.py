"""Wrong input to the RollUp functions is a clear error, and leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import Raises, Stage

CREATE = (
    "SELECT lakets.create_rollup(%s, %s, p_bucket_interval => %s, p_source_table => %s, p_depends_on => %s)"
)
HOURS = "SELECT lakets.time_bucket('1 hour', at) AS bucket, sum(value) AS total FROM metrics GROUP BY 1"


@pytest.fixture
def scene(stage: Stage) -> Stage:
    stage.once(make_scene)
    return stage


def make_scene(stage: Stage) -> None:
    stage.table(days=(1, 2))
    stage.table("others", days=(1, 2))
    stage.run("CREATE TABLE plain AS SELECT now() AS at, 1 AS value")
    stage.rollup("hourly")


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        (("hourly", HOURS, "1 hour", None, []), "P0001", "already exists"),
        (("", HOURS, "1 hour", None, []), "P0001", "1 to 48"),
        ((None, HOURS, "1 hour", None, []), "P0001", "1 to 48"),
        (("é" * 25, HOURS, "1 hour", None, []), "P0001", "has 50 bytes"),
        (("taken", HOURS, "1 hour", None, []), "P0001", "a relation with that name exists"),
        (("new", HOURS, None, None, []), "P0001", "Bucket interval null"),
        (("new", HOURS, "0", None, []), "P0001", "Bucket interval 00:00:00"),
        (("new", HOURS, "-1 hour", None, []), "P0001", "Bucket interval -01:00:00"),
        (("new", HOURS, "1 month 1 day", None, []), "22023", "mix months"),
        (("new", "SELECT value FROM metrics", "1 hour", None, []), "P0001", "returns no bucket"),
        (
            ("new", "SELECT at AS bucket FROM plain", "1 hour", None, []),
            "P0001",
            "reads 0 ChronoTables and 0 RollUps",
        ),
        (
            ("new", "SELECT m.at AS bucket FROM metrics m JOIN others USING (at)", "1 hour", None, []),
            "P0001",
            "reads 2 ChronoTables",
        ),
        (("new", HOURS, "1 hour", "others", []), "P0001", "does not read its source public.others"),
        (("new", HOURS, "1 hour", "plain", []), "P0001", "public.plain is not a ChronoTable"),
        (("new", HOURS, "1 hour", "nowhere", []), "P0001", "public.nowhere is not a ChronoTable"),
        (("new", HOURS, "1 hour", None, ["nowhere"]), "P0001", "depends on RollUp nowhere"),
        (("new", HOURS, "1 hour", None, ["1"]), "P0001", "depends on RollUp 1, which does not exist"),
        (("new", HOURS, "1 hour", None, [None]), "P0001", "depends on RollUp null"),
        (("new", "SELECT * FROM nowhere", "1 hour", None, []), "42P01", "nowhere"),
        (("new", "SELEC 1", "1 hour", None, []), "42601", "syntax error"),
        (("new", "INSERT INTO metrics VALUES (1)", "1 hour", None, []), "P0001", "is not one SELECT"),
    ],
)
def test_rollup_that_cannot_be_is_refused(
    scene: Stage, raises: Raises, arguments: tuple[object, ...], code: str, match: str
) -> None:
    scene.run("CREATE TABLE _rollup_taken ()")

    with raises(code, match=match):
        scene.run(CREATE, *arguments)

    assert scene.column("SELECT name FROM lakets.show_rollups()") == ["hourly"]
    assert (
        scene.column(
            "SELECT relname::text FROM pg_class WHERE relname LIKE '%%new' OR relname LIKE '\\_def%%'"
        )
        == []
    )


@pytest.mark.parametrize(
    "call",
    [
        "lakets.refresh_rollup('nowhere')",
        "lakets.refresh_rollup_cascade('nowhere')",
        "lakets.drop_rollup('nowhere')",
        "lakets.set_refresh_lag('nowhere', '1 hour')",
        "lakets.create_rollup_view('nowhere', 'SELECT 1')",
        "lakets.enable_rollup_invalidation('nowhere')",
        "lakets.disable_rollup_invalidation('nowhere')",
        "lakets.invalidate_rollup_range('nowhere', '2024-01-01', '2024-01-02')",
    ],
)
def test_unknown_rollup_is_named(scene: Stage, raises: Raises, call: str) -> None:
    with raises("P0001", match="RollUp nowhere does not exist"):
        scene.run(f"SELECT {call}")


@pytest.mark.parametrize(
    "dates",
    [
        ("2024-01-02", "2024-01-01"),
        ("2024-01-01", "2024-01-01"),
        (None, "2024-01-01"),
        ("2024-01-01", None),
        ("-infinity", "2024-01-01"),
        ("2024-01-01", "infinity"),
    ],
)
def test_range_that_holds_no_bucket_is_refused(
    scene: Stage, raises: Raises, dates: tuple[str | None, str | None]
) -> None:
    with raises("P0001", match="marks no bucket"):
        scene.run("SELECT lakets.invalidate_rollup_range('hourly', %s, %s)", *dates)


@pytest.mark.parametrize("lag", [None, "-1 second"])
def test_refresh_lag_must_be_a_length(scene: Stage, raises: Raises, lag: str | None) -> None:
    with raises("P0001", match="refresh_lag"):
        scene.run("SELECT lakets.set_refresh_lag('hourly', %s)", lag)


def test_rollup_whose_table_was_dropped_by_hand_says_so(scene: Stage, raises: Raises) -> None:
    scene.run("DROP TABLE _rollup_hourly")

    with raises("P0001", match="The table of RollUp hourly was dropped"):
        scene.refresh("hourly")

    scene.run("SELECT lakets.drop_rollup('hourly')")
    assert scene.run("SELECT * FROM lakets.show_rollups()") == []
