"""The metrics that the operators send through Airflow, as a StatsD client receives them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

from airflow_provider_lakets import compat
from airflow_provider_lakets.compat import AirflowFailException
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierOperator

if TYPE_CHECKING:
    from tests.lab import Lab


class Client:
    """A client that records the metrics."""

    def __init__(self) -> None:
        self.counted: dict[tuple[str, str], int] = {}
        self.gauges: dict[str, list[float]] = {}
        self.timed: dict[str, timedelta] = {}
        self.tags: list[dict[str, str]] = []

    def incr(self, stat: str, count: int = 1, rate: float = 1, *, tags: dict[str, str]) -> None:
        thing = tags.get("table") or tags["rollup"]
        self.counted[stat, thing] = self.counted.get((stat, thing), 0) + count
        self.tags.append(tags)

    def gauge(self, stat: str, value: float, *, tags: dict[str, str]) -> None:
        self.gauges.setdefault(stat, []).append(value)

    def timing(self, stat: str, dt: timedelta, *, tags: dict[str, str]) -> None:
        self.timed[f"{stat} of {tags['job']}"] = dt


@pytest.fixture
def engine() -> str:
    """Use only our engine; tests of the hook cover the differences of LakeTS 0.1.x."""
    return "ours"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """Replace the client that Airflow would create, and switch metrics on."""
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    client = Client()
    stats = compat.stats()
    for kind in ("incr", "gauge", "timing"):
        monkeypatch.setattr(stats, kind, getattr(client, kind), raising=False)
    return client


def execute(operator: Any, *, attempt: int = 1) -> Any:
    task = SimpleNamespace(
        dag_id="fleet", task_id=operator.task_id, try_number=attempt, map_index=-1, xcom_push=lambda **_: None
    )
    run = SimpleNamespace(start_date=datetime(2020, 1, 1, tzinfo=timezone.utc))
    return operator.execute({"ti": task, "dag_run": run, "outlet_events": MagicMock()})


def test_new_chunks_are_counted_by_table(client: Client, lab: Lab) -> None:
    lab.table("metrics")

    (result,) = execute(LakeTSPartitionOperator(task_id="make", future_count=9))

    created = len(result["created"])
    assert client.counted == {("lakets.chunks_created", "public.metrics"): created}
    assert client.timed["lakets.job_duration of partitions"] > timedelta(0)
    assert client.tags == [
        {
            "dag_id": "fleet",
            "task_id": "make",
            "lakebase_conn_id": "lakebase_default",
            "job": "partitions",
            "table": "public.metrics",
        }
    ]


def test_tiering_counts_what_it_flagged_and_what_it_deferred(client: Client, lab: Lab) -> None:
    lab.synced(days=6)
    lab.flush()
    *_, newest = chunks = lab.old_chunks()
    execute(LakeTSTierOperator(task_id="flag", chunks=chunks))
    lab.conn.execute(
        "INSERT INTO metrics SELECT range_start, 'b', 1 FROM lakets._chunk_metadata WHERE chunk_name = %s",
        [newest],
    )

    execute(LakeTSTierOperator(task_id="flag", chunks=[newest]))

    assert client.counted == {
        ("lakets.chunks_tiered", "public.metrics"): len(chunks),
        ("lakets.chunks_deferred", "public.metrics"): 1,
    }


def test_what_two_tries_did_is_counted_once(client: Client, lab: Lab) -> None:
    lab.synced(days=6)
    lab.flush()
    chunks = lab.old_chunks()
    with pytest.raises(AirflowFailException):
        execute(LakeTSTierOperator(task_id="flag", chunks=[*chunks, "public.gone_20200101_000000"]))

    execute(LakeTSTierOperator(task_id="flag", chunks=chunks), attempt=2)

    assert client.counted == {
        ("lakets.problems", "public.gone"): 1,
        ("lakets.chunks_tiered", "public.metrics"): len(chunks),
    }


def test_retention_counts_chunks_and_the_bytes_that_it_gave_back(client: Client, lab: Lab) -> None:
    lab.synced(days=6)
    lab.flush()

    result = execute(LakeTSRetentionOperator(task_id="drop", table="metrics"))

    assert result["dropped"]
    assert client.counted == {
        ("lakets.chunks_dropped", "public.metrics"): len(result["dropped"]),
        ("lakets.bytes_given_back", "public.metrics"): result["bytes"],
    }


def test_a_refresh_counts_rollups_and_tells_how_far_each_is_behind(client: Client, lab: Lab) -> None:
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    lab.rollup("daily", reads="hourly")

    execute(LakeTSRollupRefreshOperator(task_id="refresh", force=True))

    assert client.counted == {
        ("lakets.rollups_refreshed", "hourly"): 1,
        ("lakets.rollups_refreshed", "daily"): 1,
    }
    lags = client.gauges["lakets.rollup_lag_seconds"]
    assert sorted(lag // 86400 for lag in lags) == [0, 0]
    assert client.gauges["lakets.rollup_lag_seconds_max"] == [max(lags)]


def test_what_fails_is_counted_by_its_outcome(client: Client, lab: Lab) -> None:
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    lab.rollup("daily", reads="hourly")
    lab.break_rollup("hourly")

    with pytest.raises(AirflowFailException):
        execute(LakeTSRollupRefreshOperator(task_id="refresh"))

    outcomes = {tags["rollup"]: tags["outcome"] for tags in client.tags}
    assert outcomes == {"hourly": "failed", "daily": "skipped"}


def test_a_dry_run_counts_nothing(client: Client, lab: Lab) -> None:
    lab.table("metrics")

    execute(LakeTSPartitionOperator(task_id="make", future_count=9, dry_run=True))

    assert (client.counted, client.timed) == ({}, {})


def test_a_name_cannot_break_out_of_a_line_of_statsd(client: Client, lab: Lab) -> None:
    lab.table("a:1|c\nairflow.x,y=é")

    execute(LakeTSPartitionOperator(task_id="make", future_count=9))

    assert [tags["table"] for tags in client.tags] == ["public.a_1_c_airflow.x_y__"]


def test_a_client_that_fails_fails_no_task(client: Client, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.table("metrics")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no such host")

    monkeypatch.setattr(compat.stats(), "timing", fail, raising=False)

    (result,) = execute(LakeTSPartitionOperator(task_id="make", future_count=9))

    assert result["outcome"] == "created"
    assert client.counted
