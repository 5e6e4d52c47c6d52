"""The sample DAGs in a backfill: each run covers its data interval and nothing else."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from tests.dags.conftest import Run
    from tests.lab import Lab
    from tests.stage import Stage

    RunDag = Callable[..., Run]
    Backfill = Callable[[DAG, datetime, datetime], Run]

DAY = timedelta(days=1)
SECOND = datetime(2024, 1, 2, tzinfo=timezone.utc)


@pytest.fixture
def engine() -> str:
    """Use only our engine; tests of the hook cover the differences of LakeTS 0.1.x."""
    return "ours"


@pytest.fixture
def spoilt(lake: Stage) -> Stage:
    """A RollUp of four days in which every bucket is wrong, with no refresh due."""
    lake.table()
    lake.rollup("hourly")
    lake.refresh("hourly")
    lake.run("UPDATE public._rollup_hourly SET total = -1")
    return lake


def test_rollups_aggregate_the_interval_again_and_nothing_else(
    samples: dict[str, DAG], backfill: Backfill, spoilt: Stage
) -> None:
    noon = SECOND + timedelta(hours=12)

    done = backfill(samples["lakets_rollup_refresh"], noon, noon + timedelta(minutes=15))

    assert done.state == "success"
    assert spoilt.totals("hourly") == {"1 12": -1, "2 12": 2, "3 12": -1, "4 12": -1}


def test_interval_of_a_run_that_is_no_backfill_does_not_matter(
    samples: dict[str, DAG], run: RunDag, spoilt: Stage
) -> None:
    done = run(samples["lakets_rollup_refresh"])

    assert [one["outcome"] for one in done.result("refresh")] == ["refreshed"]
    assert set(spoilt.totals("hourly").values()) == {-1}


def test_a_manual_run_aggregates_the_range_that_it_is_given(
    samples: dict[str, DAG], run: RunDag, spoilt: Stage
) -> None:
    run(samples["lakets_rollup_refresh"], start="2024-01-02T00:00:00Z", end="2024-01-04T00:00:00Z")

    assert spoilt.totals("hourly") == {"1 12": -1, "2 12": 2, "3 12": 3, "4 12": -1}


def test_buckets_of_dropped_chunks_keep_their_value(
    samples: dict[str, DAG], backfill: Backfill, spoilt: Stage
) -> None:
    spoilt.run("SELECT lakets.drop_chunks('metrics', now() - '2024-01-03 00:00+00')")

    done = backfill(samples["lakets_rollup_refresh"], SECOND - DAY, SECOND + 2 * DAY)

    assert done.state == "success"
    assert spoilt.totals("hourly") == {"1 12": -1, "2 12": -1, "3 12": 3, "4 12": -1}


def test_partitions_of_the_interval_are_made_and_no_others(
    samples: dict[str, DAG], backfill: Backfill, lab: Lab
) -> None:
    lab.table("metrics")
    before = lab.value("SELECT count(*) FROM lakets._chunk_metadata")
    february = datetime(2024, 2, 28, 18, tzinfo=timezone.utc)

    done = backfill(samples["lakets_partition_manager"], february, february + timedelta(hours=6))

    (result,) = done.result("ensure_partitions")
    assert result["created"] == ["public.metrics_20240228_000000"]
    assert lab.value("SELECT count(*) FROM lakets._chunk_metadata") == before + 1


def test_partitions_of_a_range_are_made_by_a_manual_run(
    samples: dict[str, DAG], run: RunDag, lab: Lab
) -> None:
    lab.table("metrics")
    lab.table("others")

    done = run(
        samples["lakets_partition_manager"],
        tables=["public.metrics"],
        start="2024-02-28T00:00:00Z",
        end="2024-03-01T00:00:00Z",
    )

    (result,) = done.result("ensure_partitions")
    assert result["created"] == ["public.metrics_20240228_000000", "public.metrics_20240229_000000"]


@pytest.mark.parametrize("dag_id", ["lakets_tiering", "lakets_retention"])
def test_backfill_of_tiering_and_retention_is_a_harmless_rerun(
    samples: dict[str, Any], run: RunDag, backfill: Backfill, lab: Lab, dag_id: str
) -> None:
    lab.synced(days=8)
    lab.flush()
    run(samples["lakets_tiering"])
    lab.flush()
    run(samples[dag_id])
    query = "SELECT chunk_name || status FROM lakets._chunk_metadata ORDER BY 1"
    before = lab.values(query)

    done = backfill(samples[dag_id], SECOND, SECOND + DAY)

    assert done.state == "success"
    assert lab.values(query) == before


def test_half_a_range_fails_at_once(samples: dict[str, DAG], run: RunDag, spoilt: Stage) -> None:
    done = run(samples["lakets_rollup_refresh"], start="2024-01-02T00:00:00Z")

    assert (done.state, done.tries["refresh"]) == ("failed", 1)
    assert "go together" in str(done.errors[-1])
