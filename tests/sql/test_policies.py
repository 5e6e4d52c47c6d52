"""Policies: one of each kind per table, with valid ages."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import Raises, Stage

TIERING = "SELECT lakets.add_tiering_policy('metrics', %s)"
RETENTION = "SELECT lakets.add_retention_policy('metrics', %s)"
BOTH = "SELECT lakets.add_tiered_retention_policy('metrics', %s, %s)"
REGISTRY = "SELECT tiering_enabled, retention_interval FROM lakets._chronotable_registry"


@pytest.fixture
def table(stage: Stage) -> Stage:
    stage.table(days=())
    return stage


def tiering(stage: Stage) -> list[tuple[object, ...]]:
    return stage.run(
        "SELECT pol.policy_type, shown.after, shown.enabled"
        " FROM lakets.show_tiering_policy('metrics') AS shown"
        " JOIN lakets._policy_registry AS pol ON pol.id = shown.policy_id"
    )


def retention(stage: Stage) -> list[tuple[object, ...]]:
    return stage.run("SELECT policy_type, drop_after, enabled FROM lakets.show_retention_policy('metrics')")


def test_tiering_policy_is_shown_and_registered(table: Stage) -> None:
    policy = table.value(TIERING, "30 days")

    assert tiering(table) == [("tiering", "30 days", True)]
    assert table.value("SELECT config FROM lakets._policy_registry WHERE id = %s", policy) == {
        "after": "30 days"
    }
    assert table.run(REGISTRY) == [(True, None)]


def test_retention_policy_is_shown_and_registered(table: Stage) -> None:
    table.run(RETENTION, "90 days")

    assert retention(table) == [("retention", "90 days", True)]
    assert table.run(REGISTRY) == [(False, timedelta(90))]


def test_tiered_retention_is_both(table: Stage) -> None:
    table.run(BOTH, "30 days", "90 days")

    assert tiering(table) == [("tiered_retention", "30 days", True)]
    assert retention(table) == [("tiered_retention", "90 days", True)]
    assert table.run(REGISTRY) == [(True, timedelta(90))]


def test_tiering_and_retention_go_together(table: Stage) -> None:
    table.run(TIERING, "30 days")
    table.run(RETENTION, "90 days")

    assert (len(tiering(table)), len(retention(table))) == (1, 1)


@pytest.mark.parametrize("style", ["postgres", "postgres_verbose", "sql_standard", "iso_8601"])
def test_age_means_the_same_under_any_interval_style(table: Stage, style: str) -> None:
    table.run(f"SET intervalstyle = '{style}'")
    table.run(BOTH, "1 month 2 days 3 hours", "1 year")
    table.run("RESET intervalstyle")

    assert table.run(
        "SELECT t.after, r.drop_after, r.tier_after"
        " FROM lakets.show_tiering_policy('metrics') AS t, lakets.show_retention_policy('metrics') AS r"
    ) == [("1 mon 2 days 03:00:00", "1 year", "1 mon 2 days 03:00:00")]


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ((TIERING, "1 day"), (TIERING, "2 days"), "tiering"),
        ((RETENTION, "1 day"), (RETENTION, "2 days"), "retention"),
        ((BOTH, "1 day", "2 days"), (BOTH, "1 day", "3 days"), "tiered_retention"),
        ((BOTH, "1 day", "2 days"), (TIERING, "1 day"), "tiered_retention"),
        ((BOTH, "1 day", "2 days"), (RETENTION, "1 day"), "tiered_retention"),
        ((TIERING, "1 day"), (BOTH, "1 day", "2 days"), "tiering"),
        ((RETENTION, "1 day"), (BOTH, "1 day", "2 days"), "retention"),
    ],
)
def test_second_policy_of_a_kind_is_refused_and_changes_nothing(
    table: Stage, raises: Raises, first: tuple[str, ...], second: tuple[str, ...], kind: str
) -> None:
    table.run(*first)
    before = (tiering(table), retention(table), table.run(REGISTRY))

    with raises("P0001", match=f"already has a {kind} policy"):
        table.run(*second)

    assert (tiering(table), retention(table), table.run(REGISTRY)) == before


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ((TIERING, None), "p_after must be a positive interval or zero, not null"),
        ((TIERING, "-1 day"), "p_after must be a positive interval"),
        ((RETENTION, None), "p_drop_after must be a positive interval, not null"),
        ((RETENTION, "0"), "p_drop_after must be a positive interval, not 00:00:00"),
        ((RETENTION, "-1 month"), "p_drop_after must be a positive interval"),
        ((BOTH, None, "1 day"), "p_tier_after must be a positive interval"),
        ((BOTH, "1 day", None), "p_drop_after must be a positive interval"),
        ((BOTH, "2 days", "1 day"), "must be shorter than p_drop_after"),
        ((BOTH, "24 hours", "1 day"), "must be shorter than p_drop_after"),
    ],
)
def test_age_that_makes_no_sense_is_refused(
    table: Stage, raises: Raises, call: tuple[str, ...], match: str
) -> None:
    with raises("P0001", match=match):
        table.run(*call)

    assert (tiering(table), retention(table)) == ([], [])


def test_removed_policy_is_gone(table: Stage) -> None:
    table.run(TIERING, "30 days")
    table.run(RETENTION, "90 days")

    table.run("SELECT lakets.remove_tiering_policy('metrics')")

    assert tiering(table) == []
    assert table.run(REGISTRY) == [(False, timedelta(90))]


def test_zero_is_a_horizon_for_tiering(table: Stage) -> None:
    table.run(TIERING, "0 seconds")

    assert tiering(table) == [("tiering", "00:00:00", True)]


def test_removing_the_retention_of_tiered_retention_removes_it(table: Stage) -> None:
    table.run(BOTH, "30 days", "90 days")

    table.run("SELECT lakets.remove_retention_policy('metrics')")

    assert (tiering(table), retention(table)) == ([], [])
    assert table.run(REGISTRY) == [(False, None)]


def test_removing_the_tiering_policy_leaves_tiered_retention(table: Stage) -> None:
    table.run(BOTH, "30 days", "90 days")

    table.run("SELECT lakets.remove_tiering_policy('metrics')")

    assert len(retention(table)) == 1
    assert table.run(REGISTRY) == [(True, timedelta(90))]


@pytest.mark.parametrize("kind", ["tiering", "retention"])
def test_removing_a_policy_that_is_not_there_changes_nothing(table: Stage, kind: str) -> None:
    table.run(f"SELECT lakets.remove_{kind}_policy('metrics')")

    assert table.run(REGISTRY) == [(False, None)]


@pytest.mark.parametrize(
    "call",
    [
        "lakets.add_tiering_policy('nowhere', '1 day')",
        "lakets.add_retention_policy('nowhere', '1 day')",
        "lakets.add_tiered_retention_policy('nowhere', '1 day', '2 days')",
        "lakets.remove_tiering_policy('nowhere')",
        "lakets.remove_retention_policy('nowhere')",
        "lakets.show_tiering_policy('nowhere')",
        "lakets.show_retention_policy('nowhere')",
    ],
)
def test_unknown_table_is_named(table: Stage, raises: Raises, call: str) -> None:
    with raises("P0001", match="public.nowhere is not a ChronoTable"):
        table.run(f"SELECT {call}")


@pytest.mark.parametrize("age", ["6000 years", "10000 years", "178000000 years"])
def test_age_before_all_times_means_never(stage: Stage, age: str) -> None:
    stage.synced(days=range(1, 4))
    stage.rollup("hourly")
    chunks = stage.column("SELECT chunk_name FROM lakets.show_chunks('metrics')")
    stage.run("SELECT lakets.remove_retention_policy('metrics')")

    stage.run(BOTH, "1 day", age)
    assert stage.value("SELECT lakets.execute_retention('metrics')") == 0
    assert stage.run("SELECT * FROM lakets.retention_report('metrics')") == []
    stage.run("SELECT lakets.remove_retention_policy('metrics')")
    stage.run(TIERING, age)
    assert stage.run("SELECT * FROM lakets._get_chunks_to_tier('metrics')") == []
    assert stage.column("SELECT pending_chunks FROM lakets.show_tiering_status()") == [0]
    assert stage.value("SELECT count(*) FROM lakets.lakets_metrics()") > 0

    assert stage.value("SELECT lakets.drop_chunks('metrics', %s)", age) == 0
    assert stage.run("SELECT * FROM lakets.show_chunks('metrics', p_older_than => %s)", age) == []
    newer = "SELECT chunk_name FROM lakets.show_chunks('metrics', p_newer_than => %s)"
    assert stage.column(newer, age) == chunks
    assert stage.column(newer, f"-{age}") == []
    assert stage.run("SELECT * FROM lakets.alert_deadman('silent', 'metrics', 'id', %s)", age) == []


def test_refresh_lag_is_at_most_a_century(stage: Stage, raises: Raises) -> None:
    stage.table()
    stage.rollup("hourly")

    with raises("P0001", match="at most 100 years"):
        stage.run("SELECT lakets.set_refresh_lag('hourly', '1000000 years')")
