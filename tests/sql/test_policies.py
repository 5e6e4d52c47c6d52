"""Policies: one of a kind a table, with ages that make sense."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stage import Stage

TIERING = "SELECT lakets.add_tiering_policy('metrics', %s)"
RETENTION = "SELECT lakets.add_retention_policy('metrics', %s)"
BOTH = "SELECT lakets.add_tiered_retention_policy('metrics', %s, %s)"
REGISTRY = "SELECT tiering_enabled, retention_interval FROM lakets._chronotable_registry"


@pytest.fixture
def table(stage: Stage) -> Stage:
    stage.table(days=())
    return stage


def tiering(stage: Stage) -> list[tuple[object, ...]]:
    return stage.run("SELECT policy_type, after, enabled FROM lakets.show_tiering_policy('metrics')")


def retention(stage: Stage) -> list[tuple[object, ...]]:
    return stage.run("SELECT policy_type, drop_after, enabled FROM lakets.show_retention_policy('metrics')")


def test_tiering_policy_is_shown_and_registered(table: Stage) -> None:
    policy = table.value(TIERING, "30 days")

    assert tiering(table) == [("tiering", timedelta(30), True)]
    assert table.value("SELECT config FROM lakets._policy_registry WHERE id = %s", policy) == {
        "after": "30 days"
    }
    assert table.run(REGISTRY) == [(True, None)]


def test_retention_policy_is_shown_and_registered(table: Stage) -> None:
    table.run(RETENTION, "90 days")

    assert retention(table) == [("retention", timedelta(90), True)]
    assert table.run(REGISTRY) == [(False, timedelta(90))]


def test_tiered_retention_is_both(table: Stage) -> None:
    table.run(BOTH, "30 days", "90 days")

    assert tiering(table) == [("tiered_retention", timedelta(30), True)]
    assert retention(table) == [("tiered_retention", timedelta(90), True)]
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
        "SELECT t.after = interval '1 month 2 days 3 hours', r.drop_after = interval '1 year'"
        " FROM lakets.show_tiering_policy('metrics') AS t, lakets.show_retention_policy('metrics') AS r"
    ) == [(True, True)]


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
    table: Stage, raises: Callable[..., object], first: tuple[str, ...], second: tuple[str, ...], kind: str
) -> None:
    table.run(*first)
    before = (tiering(table), retention(table), table.run(REGISTRY))

    with raises("42710", match=f"already has a {kind} policy"):  # type: ignore[attr-defined]
        table.run(*second)

    assert (tiering(table), retention(table), table.run(REGISTRY)) == before


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ((TIERING, None), "p_after must be a positive interval, not null"),
        ((TIERING, "0"), "p_after must be a positive interval"),
        ((TIERING, "-1 day"), "p_after must be a positive interval"),
        ((RETENTION, None), "p_drop_after must be a positive interval, not null"),
        ((RETENTION, "-1 month"), "p_drop_after must be a positive interval"),
        ((BOTH, None, "1 day"), "p_tier_after must be a positive interval"),
        ((BOTH, "1 day", None), "p_drop_after must be a positive interval"),
        ((BOTH, "2 days", "1 day"), "must be shorter than p_drop_after"),
        ((BOTH, "24 hours", "1 day"), "must be shorter than p_drop_after"),
    ],
)
def test_age_that_makes_no_sense_is_refused(
    table: Stage, raises: Callable[..., object], call: tuple[str, ...], match: str
) -> None:
    with raises("22023", match=match):  # type: ignore[attr-defined]
        table.run(*call)

    assert (tiering(table), retention(table)) == ([], [])


def test_removed_policy_is_gone(table: Stage) -> None:
    table.run(TIERING, "30 days")
    table.run(RETENTION, "90 days")

    table.run("SELECT lakets.remove_tiering_policy('metrics')")

    assert tiering(table) == []
    assert table.run(REGISTRY) == [(False, timedelta(90))]


@pytest.mark.parametrize("kind", ["tiering", "retention"])
def test_removing_either_half_of_tiered_retention_removes_it(table: Stage, kind: str) -> None:
    table.run(BOTH, "30 days", "90 days")

    table.run(f"SELECT lakets.remove_{kind}_policy('metrics')")

    assert (tiering(table), retention(table)) == ([], [])
    assert table.run(REGISTRY) == [(False, None)]


@pytest.mark.parametrize("kind", ["tiering", "retention"])
def test_policy_that_is_not_there_cannot_be_removed(
    table: Stage, raises: Callable[..., object], kind: str
) -> None:
    with raises("42704", match=f"has no {kind} policy"):  # type: ignore[attr-defined]
        table.run(f"SELECT lakets.remove_{kind}_policy('metrics')")


@pytest.mark.parametrize(
    "call",
    [
        "lakets.add_tiering_policy('nowhere', '1 day')",
        "lakets.add_retention_policy('nowhere', '1 day')",
        "lakets.add_tiered_retention_policy('nowhere', '1 day', '2 days')",
        "lakets.remove_tiering_policy('nowhere')",
        "lakets.remove_retention_policy('nowhere')",
    ],
)
def test_unknown_table_is_named(table: Stage, raises: Callable[..., object], call: str) -> None:
    with raises("42P01", match="public.nowhere is not a ChronoTable"):  # type: ignore[attr-defined]
        table.run(f"SELECT {call}")


def test_policies_of_every_table_are_listed_without_a_name(table: Stage) -> None:
    table.table("others", days=())
    table.run(BOTH, "1 day", "2 days")
    table.run("SELECT lakets.add_tiering_policy('others', '3 days')")

    assert table.run("SELECT table_name, after FROM lakets.show_tiering_policy()") == [
        ("metrics", timedelta(1)),
        ("others", timedelta(3)),
    ]
    assert table.column("SELECT table_name FROM lakets.show_retention_policy()") == ["metrics"]
