"""A value that was written by hand into a registry does not stop the reports of all tables."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.monitoring.attention import needs_attention
from airflow_provider_lakets.monitoring.data import gather

if TYPE_CHECKING:
    from tests.lab import Lab

QUERY = "SELECT lakets.time_bucket('1 hour', at) AS bucket, count(*) AS n FROM {} GROUP BY 1"
ROLLUP = "UPDATE lakets._rollup_registry SET {} WHERE name = 'of_metrics'"
POLICY = 'UPDATE lakets._policy_registry SET config = config || \'{{"{}": "{}"}}\' WHERE chronotable_id = 1'
CHUNK = "UPDATE lakets._chunk_metadata SET {} WHERE chronotable_id = 1"
TABLE = "UPDATE lakets._chronotable_registry SET {} WHERE id = 1"
LAGS = ["10000 years", "-10000 years", "178000000 years", "-178000000 years"]
TIMES = ["infinity", "-infinity", "294276-12-31", "4714-11-24 BC"]
AGES = ["soon", "99999999999 years", "178000000 years", "-178000000 years", "-1000 years"]
RUN = (
    "INSERT INTO lakets._job_run (job, relation, started_at, seconds, outcome, counts)"
    " VALUES ('tier', 'public.metrics', '{}', '{}', 'failed', '{{}}')"
)
ODD = [
    *(RUN.format("2026-01-01", seconds) for seconds in ("Infinity", "-Infinity", "NaN", "1e300", "-1")),
    *(RUN.format(at, 1) for at in TIMES),
    *(ROLLUP.format(f"refresh_lag = '{lag}'") for lag in LAGS),
    *(ROLLUP.format(f"watermark = '{at}', last_refreshed_at = '{at}'") for at in TIMES),
    *(POLICY.format(key, age) for key in ("after", "tier_after", "drop_after") for age in AGES),
    *(f"UPDATE lakets._policy_registry SET config = '{config}'" for config in ("{}", "[]", "null", "5")),
    *(CHUNK.format(f"size_bytes = {size}") for size in (-1, 2**63 - 1)),
    *(CHUNK.format(f"size_bytes = {size}, status = 'dropped'") for size in (-1, 2**63 - 1)),
    "UPDATE lakets._chunk_metadata SET range_start = '-infinity', range_end = 'infinity' WHERE id = 1",
    TABLE.format("chunk_interval = '178000000 years'"),
    TABLE.format("retention_interval = '-178000000 years'"),
]


@pytest.fixture
def engine() -> str:
    return "ours"


def make_two(lab: Lab) -> None:
    for name in ("metrics", "others"):
        lab.make_synced(name, days=5, tier="2 days", drop="4 days")
        lab.conn.execute("SELECT lakets.create_rollup(%s, %s)", [f"of_{name}", QUERY.format(name)])


@pytest.mark.parametrize("change", ODD)
def test_one_odd_value_leaves_the_reports_of_the_others(lab: Lab, change: str) -> None:
    lab.once(make_two)
    with contextlib.suppress(psycopg.errors.DataError, psycopg.errors.CheckViolation):  # refused
        lab.conn.execute(change.encode())

    snapshot = gather(lab.hook())
    status = lab.hook().status()
    metrics = lab.hook().lakets_metrics()

    needs_attention(snapshot)
    for report in (snapshot, status):
        assert {table.name for table in report.tables} >= {"public.others"}
        assert {rollup.name for rollup in report.rollups} >= {"of_others"}
    assert {(one.labels.get("table"), one.labels.get("rollup")) for one in metrics} >= {
        ("public.others", None),
        (None, "of_others"),
    }


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE lakets._rollup_registry SET refresh_lag = '10001 years'",
        'UPDATE lakets._policy_registry SET config = config || \'{"drop_after": "soon"}\'',
        'UPDATE lakets._policy_registry SET config = config || \'{"tier_after": "-1001 years"}\'',
    ],
)
def test_a_lag_or_age_with_which_no_time_can_be_computed_is_refused(lab: Lab, change: str) -> None:
    lab.once(make_two)

    with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.InvalidDatetimeFormat)):
        lab.conn.execute(change.encode())


def test_a_size_that_is_not_recorded_is_unknown(lab: Lab) -> None:
    lab.synced(days=5)

    (table,) = gather(lab.hook()).tables

    assert {run.bytes for run in table.runs} == {None}
