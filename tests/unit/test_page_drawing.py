"""The drawings and texts of the page."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_lakets.monitoring.data import Rollup, Run, Table
from airflow_provider_lakets.monitoring.words import NOTHING, interval
from airflow_provider_lakets.plugin.chunk_map import NARROWEST, SPANS, Axis, axis_svg, choose_axis, row_svg
from airflow_provider_lakets.plugin.html import marked
from airflow_provider_lakets.plugin.rollup_graph import graph_svg

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


def test_the_line_of_now_is_behind_the_labels_of_the_scale() -> None:
    scale = axis_svg(Axis(NOW - timedelta(days=31), NOW + timedelta(days=3), NOW, "30d"))

    assert 0 < scale.index('class="now"') < scale.index("<text")


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

    axis = choose_axis([many], NOW, "all")
    among_others, alone = row_svg(many, axis), row_svg(many, axis, alone=True)

    assert among_others.count("<rect") == alone.count("<rect") <= 100 / NARROWEST
    assert 'class="s-due"' in among_others
    assert among_others.count("<title>") == 1  # the line of now
    assert len(re.findall(r"<title>\d+ due, \d+ tiered: ", alone)) == alone.count("<rect")


@pytest.mark.parametrize(("chunks", "gaps"), [(1, 0), (10, 10), (40, 31)], ids=["one", "all", "part outside"])
def test_the_chunks_of_a_run_are_one_cell_with_gaps_as_far_as_they_are_shown(chunks: int, gaps: int) -> None:
    axis = Axis(NOW - timedelta(days=31), NOW, NOW, "30d")
    start = NOW - timedelta(days=chunks)
    daily = replace(table(oldest=1), runs=[Run("tiered", start, NOW, chunks, None, "first")])

    row = row_svg(daily, axis)

    assert row.count("<rect") == 1
    assert re.findall(r'pathLength="(\d+)"', row) == ([str(gaps)] if gaps else [])


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("01:00:00", "1 h"),
        ("1 day 12:30:00", "1 day 12 h 30 min"),
        ("00:00:00", "0 s"),
        ("1 mon", "1 mon"),
        ("100:00:00", "4 d 4 h"),
        ("-00:15:00", "-15 min"),
        (None, NOTHING),
    ],
)
def test_an_interval_is_shown_in_units(written: str | None, shown: str) -> None:
    assert interval(written) == shown


def test_the_ages_of_the_policies_and_now_are_lines_with_words() -> None:
    one = replace(
        table(oldest=40, drop=20),
        tier_before=NOW - timedelta(days=9),
        tier_after="9 days",
        drop_after="20 days",
    )

    row = row_svg(one, choose_axis([one], NOW))

    lines = re.findall(r'<line class="(tier|drop|now)" .*?<title>(.*?)</title>', row)
    assert lines == [
        ("drop", "dropped when older than 20 days"),
        ("tier", "tiered when older than 9 days"),
        ("now", "now"),
    ]


def rollup(name: str, *, marks: int = 0, reads: str | None = None) -> Rollup:
    return Rollup(
        name=name,
        source=None if reads else "public.t",
        depends_on=[reads] if reads else [],
        bucket_interval="01:00:00",
        bucket_seconds=3600,
        refresh_lag="00:10:00",
        watermark=NOW - timedelta(hours=3),
        last_refreshed_at=NOW - timedelta(minutes=5),
        is_late=False,
        marks=marks,
    )


def test_a_rollup_is_drawn_with_how_far_it_is_and_how_bad_that_is() -> None:
    rollups = [rollup("broken"), rollup("late"), rollup("dirty", marks=12), rollup("fresh", reads="dirty")]

    graph = graph_svg(rollups, {}, NOW, {"broken": "fail", "late": "warn"})

    assert graph is not None
    boxes = re.findall(r'class="box (\w+)".*?</a>', graph)
    assert boxes == ["source", "fail", "dirty", "warn", "fresh"]
    assert re.findall(r'class="mark \w+">(\w+)<', graph) == ["Broken", "Look"]
    assert graph.count("up to 3 h before now") == 4 * 2  # in the box, and as its title
    assert "refreshed 5 min ago · 12 dirty" in graph
