"""The demo's parts that need no server: data, comparison, and the report of the jobs."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from airflow_provider_lakets.local.demo import data, report
from airflow_provider_lakets.local.demo.airflow import outcomes
from airflow_provider_lakets.local.demo.airflow.runs import DagRun, TaskRun
from airflow_provider_lakets.local.demo.compare import difference
from airflow_provider_lakets.local.demo.picture import draw_bar
from airflow_provider_lakets.local.demo.progress import Steps

NOW = datetime(2031, 3, 4, 17, 6, 7, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def year() -> dict[str, pa.Table]:
    return data.load(NOW)


def test_a_year_of_data_ends_within_the_last_hour(year: dict[str, pa.Table]) -> None:
    scheduled = year["flights"]["scheduled"].to_pylist()

    assert NOW - timedelta(hours=1) < max(scheduled) <= NOW
    assert timedelta(days=364) < NOW - min(scheduled) < timedelta(days=366)
    assert {name: len(rows) for name, rows in year.items()} == {"weather": 26_115, "flights": 336_776}


def test_readings_stay_on_the_full_hour(year: dict[str, pa.Table]) -> None:
    assert {at.minute for at in year["weather"]["observed"].to_pylist()} == {0}


@pytest.mark.parametrize("source", data.SOURCES, ids=lambda source: source.name)
def test_keys_tell_rows_apart(year: dict[str, pa.Table], source: data.Source) -> None:
    rows = year[source.name]

    assert len(rows.group_by(list(source.key)).aggregate([])) == len(rows)


def _rows(*rows: tuple[int, str | None]) -> pa.Table:
    keys, values = zip(*rows, strict=True) if rows else ((), ())
    return pa.table({"key": pa.array(keys, pa.int64()), "value": pa.array(values, pa.string())})


@pytest.mark.parametrize(
    ("found", "missing", "altered", "extra"),
    [
        pytest.param([(1, "a"), (2, None)], 0, 0, 0, id="same"),
        pytest.param([(2, None), (1, "a")], 0, 0, 0, id="other-order"),
        pytest.param([(1, "a")], 1, 0, 0, id="missing"),
        pytest.param([(1, "a"), (2, "")], 0, 1, 0, id="null-is-not-empty"),
        pytest.param([(1, "b"), (2, None)], 0, 1, 0, id="altered"),
        pytest.param([(1, "a"), (2, None), (2, None)], 0, 0, 1, id="doubled"),
        pytest.param([(1, "a"), (2, None), (2, None), (2, None)], 0, 0, 2, id="trebled"),
        pytest.param([(1, "a"), (2, None), (3, "a")], 0, 0, 1, id="extra"),
        pytest.param([], 2, 0, 0, id="none"),
    ],
)
def test_difference_counts(
    found: list[tuple[int, str | None]], missing: int, altered: int, extra: int
) -> None:
    told = difference(_rows((1, "a"), (2, None)), _rows(*found), ["key"])

    assert (len(told.missing), len(told.altered), len(told.extra)) == (missing, altered, extra)


def _run(dag_id: str, task_id: str, *results: Any) -> DagRun:
    return DagRun(f"lakets_{dag_id}", 1.5, [TaskRun(task_id, None, "success", result) for result in results])


def _tier(*outcomes: str) -> DagRun:
    names = [f"public.flights_2031{month:02}01_000000" for month in range(1, 13)]
    detail = "changes to it are not known to be flushed yet, and that is a long story to tell in a table"
    batch = [
        {"name": name, "outcome": outcome, "detail": detail}
        for name, outcome in zip(names, outcomes, strict=False)
    ]
    return _run("tiering", "tier", batch[:1], batch[1:])


def _retain(dropped: int, deferred: int) -> DagRun:
    names = [f"public.flights_2031{month:02}01_000000" for month in range(1, 13)]
    stays = [{"chunk": name, "reason": "not durable"} for name in names[:deferred]]
    return _run(
        "retention", "drop_expired", {"name": "public.flights", "dropped": names[:dropped], "deferred": stays}
    )


REFRESHED = {"name": "flights_hourly", "outcome": "refreshed", "detail": None, "ms": 12}
AS_PREPARED = [
    _run("partition_manager", "ensure_partitions", [{"name": "public.flights", "created": ["a"]}]),
    _run("rollup_refresh", "refresh", [REFRESHED]),
    _tier("tiered", "deferred"),
    _retain(3, 1),
    _tier("tiered"),
    _retain(1, 0),
]


def test_what_went_as_prepared_is_no_surprise() -> None:
    assert outcomes.unexpected_results(AS_PREPARED) == []


@pytest.mark.parametrize(
    ("position", "run", "said"),
    [
        pytest.param(
            0,
            _run("partition_manager", "ensure_partitions", [{"name": "public.flights", "created": []}]),
            "DAG lakets_partition_manager, run 1: it created no chunk, though some were missing",
            id="nothing-created",
        ),
        pytest.param(
            1,
            _run("rollup_refresh", "refresh", [{**REFRESHED, "outcome": "unchanged"}]),
            "DAG lakets_rollup_refresh, run 1: flights_hourly is unchanged",
            id="not-refreshed",
        ),
        pytest.param(
            2, _tier("tiered"), "DAG lakets_tiering, run 1: its candidates were tiered", id="none-deferred"
        ),
        pytest.param(2, _tier(), "DAG lakets_tiering, run 1: its candidates were none", id="no-candidate"),
        pytest.param(
            3,
            _retain(0, 1),
            "DAG lakets_retention, run 1: it dropped 0 chunks and deferred 1",
            id="none-dropped",
        ),
        pytest.param(
            5, _retain(1, 1), "DAG lakets_retention, run 2: it dropped 1 chunks and deferred 1", id="one-left"
        ),
    ],
)
def test_what_went_otherwise_is_told(position: int, run: DagRun, said: str) -> None:
    runs = [*AS_PREPARED[:position], run, *AS_PREPARED[position + 1 :]]

    assert outcomes.unexpected_results(runs) == [said]


@pytest.mark.parametrize("width", [80, 100])
def test_account_of_the_jobs_fits_the_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    report.print_jobs(console, [*AS_PREPARED, _tier(*["deferred"] * 12)])
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()

    assert max(len(line) for line in told.splitlines()) <= width
    assert "…" not in told
    assert "12 deferred: changes to it are" in told
    assert "(2031-01-01 and 11" in told


@pytest.mark.parametrize(
    ("counts", "drawn"),
    [
        pytest.param({"hot": 100}, "██████████", id="full"),
        pytest.param({"delta": 30, "tiered": 30, "hot": 40}, "░░░▓▓▓████", id="shares"),
        pytest.param({"delta": 100, "hot": 1}, "░░░░░░░░░█", id="a-few-rows-are-seen-in-a-full-bar"),
        pytest.param({"delta": 40, "hot": 1}, "░░░░█", id="a-few-rows-are-seen"),
        pytest.param({}, "", id="none"),
    ],
)
def test_bar_shows_where_rows_are(counts: dict[str, int], drawn: str) -> None:
    assert draw_bar(counts, 100, 10, unicode=True).plain == drawn


def test_a_terminal_without_unicode_gets_plain_marks() -> None:
    written = io.BytesIO()
    console = Console(file=io.TextIOWrapper(written, encoding="ascii"), width=80)

    with Steps(console).step("Do something"):
        pass

    console.file.flush()
    assert written.getvalue().startswith(b"+ Do something")
