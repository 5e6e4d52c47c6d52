"""How the page draws and words what it has read."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_lakets.monitoring.data import Run, Table
from airflow_provider_lakets.plugin.chunk_map import NARROWEST, SPANS, choose_axis, row_svg
from airflow_provider_lakets.plugin.html import marked

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def table(*, oldest: int, drop: int | None = None) -> Table:
    """Return a table with a chunk of so many days ago, a policy or none, and a chunk made ahead."""
    ages = [(oldest, "hot"), (-1, "planned")]
    runs = [
        Run(state, NOW - timedelta(days=age), NOW - timedelta(days=age - 1), 1, None, f"chunk_{age}")
        for age, state in ages
    ]
    horizon = None if drop is None else NOW - timedelta(days=drop)
    return Table(1, "public.t", "public", "t", "1 day", True, None, horizon, None, None, None, None, runs)


@pytest.mark.parametrize("span", [None, *SPANS])
def test_the_map_begins_near_the_oldest_chunk_that_its_span_reaches(span: str | None) -> None:
    axis = choose_axis([table(oldest=40)], NOW, span)
    days = SPANS[axis.span]
    reached = min(40, days) if days else 40

    assert timedelta(days=reached) <= NOW - axis.start <= timedelta(days=max(reached * 1.1, 1 + reached))


def test_the_map_shows_the_age_of_a_policy_that_no_chunk_has_reached() -> None:
    axis = choose_axis([table(oldest=40, drop=60)], NOW, "90d")

    assert 0 < axis.at(NOW - timedelta(days=60)) < 100


def test_what_stands_between_backticks_is_code_and_escaped() -> None:
    assert marked("Run `lakets run <x>` & look") == "Run <code>lakets run &lt;x&gt;</code> &amp; look"


def test_chunks_that_are_too_narrow_to_be_told_apart_are_drawn_as_one() -> None:
    start = NOW - timedelta(hours=10_000)
    states = ("tiered", "due")
    runs = [
        Run(states[n % 2], start + timedelta(hours=n), start + timedelta(hours=n + 1), 1, None, f"c{n}")
        for n in range(10_000)
    ]
    many = replace(table(oldest=1), runs=runs)

    row = row_svg(many, choose_axis([many], NOW, "all"))

    assert row.count("<rect") <= 100 / NARROWEST
    assert 'class="s-due"' in row
    assert "due, " in row
    assert row.count("5000 tiered") == 1
