"""The hook's methods for single series, on our engine and on the stand-in for 0.1.3."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.exceptions import LakeTSArgumentError

if TYPE_CHECKING:
    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from tests.lab import Lab


@pytest.fixture
def hook(lab: Lab) -> LakeTSHook:
    lab.table("metrics", days=1)
    return lab.hook()


def test_last_values_are_kept_and_read(lab: Lab, hook: LakeTSHook) -> None:
    hook.enable_lvc("metrics", ["device"], ["value"])
    lab.conn.execute("INSERT INTO metrics VALUES (now(), 'a', 7), (now(), 'b%%', 8)")

    latest = {row["device"]: row["value"] for row in hook.latest_values("metrics")}
    (cache,) = hook.lvc_stats()
    hook.disable_lvc("metrics")

    assert latest == {"a": 7, "b%%": 8}
    assert (cache.chronotable, cache.cached_series, cache.enabled) == ("public.metrics", 2, True)
    assert hook.lvc_stats() == []


def test_last_values_of_a_table_without_a_cache_are_refused(hook: LakeTSHook) -> None:
    with pytest.raises(LakeTSArgumentError, match="not enabled"):
        hook.latest_values("metrics")


def test_a_metric_table_is_made_filled_and_counted(hook: LakeTSHook) -> None:
    hook.create_metric_table("cpu", ["host"], ["usage"], chunk_interval="1 day")
    now = datetime.now(timezone.utc).isoformat()

    assert (
        hook.ingest_batch(
            "cpu",
            [
                {"time": now, "host": "a", "usage": 1.5},
                {"time": now, "host": "it's"},
            ],
        )
        == 2
    )
    assert [
        (one.column_name, one.distinct_values, one.pct_of_rows) for one in hook.cardinality_stats("cpu")
    ] == [("host", 2, 100.0)]
    assert hook.cardinality_check("cpu", max_series=1).status == "CRITICAL"


def test_a_sample_of_prometheus_is_written(lab: Lab, hook: LakeTSHook) -> None:
    lab.conn.execute(
        'CREATE TABLE samples ("time" timestamptz, metric_name text, labels jsonb, value float8)'
    )

    hook.ingest_prometheus(
        "samples", "up", {"job": "a"}, 1, timestamp=datetime(2026, 1, 1, tzinfo=timezone.utc)
    )
    hook.ingest_prometheus("samples", "up", {}, 0)

    assert lab.values("SELECT labels FROM samples ORDER BY value DESC") == [{"job": "a"}, {}]


def test_alerts_are_records(hook: LakeTSHook) -> None:
    (alert,) = hook.alert_check("any", "SELECT device FROM metrics", severity="info")
    (silent,) = hook.alert_deadman("silent", "metrics", "device", "1 microsecond")

    assert (alert.alert_name, alert.severity, alert.alert_data) == ("any", "info", {"device": "a"})
    assert (silent.dead_key, silent.severity) == ("a", "critical")
    assert isinstance(silent.silent_for, str)


def test_statistics_are_none_without_the_extension(hook: LakeTSHook) -> None:
    assert hook.query_stats() == []
