"""LakeTSHook with a time range: RollUps re-aggregate only its buckets."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab import Lab
    from tests.stage import Stage

DAY = timedelta(days=1)
START = datetime(2024, 1, 2, tzinfo=timezone.utc)


@pytest.fixture
def engine() -> str:
    """Use our engine by default; tests of 0.1.x request it."""
    return "ours"


def spoil(lake: Stage) -> None:
    """Make every bucket differ from its source."""
    lake.run("UPDATE public._rollup_hourly SET total = -1")
    lake.run("UPDATE public._rollup_daily SET total = -1")


@pytest.fixture
def spoilt(lake: Stage) -> Stage:
    """A RollUp of four days and one that reads it, both wrong everywhere, with no refresh due."""
    lake.table()
    lake.rollup("hourly")
    lake.rollup("daily", reads="hourly", every="1 day")
    lake.refresh("hourly")
    lake.refresh("daily")
    spoil(lake)
    return lake


def test_just_the_buckets_of_the_range_are_aggregated_again(spoilt: Stage, lab: Lab) -> None:
    results = lab.hook().refresh(start=START, end=START + DAY)

    assert [(one.name, one.outcome) for one in results] == [("hourly", "refreshed"), ("daily", "refreshed")]
    assert spoilt.totals("hourly") == {"1 12": -1, "2 12": 2, "3 12": -1, "4 12": -1}
    assert spoilt.totals("daily") == {"1 0": -1, "2 0": 2, "3 0": -1, "4 0": -1}


def test_a_normal_refresh_aggregates_nothing_that_did_not_change(spoilt: Stage, lab: Lab) -> None:
    lab.hook().refresh()

    assert set(spoilt.totals("hourly").values()) == {-1}


def test_a_range_within_a_bucket_aggregates_that_bucket(spoilt: Stage, lab: Lab) -> None:
    noon = START + timedelta(hours=12)

    lab.hook().refresh(start=noon + timedelta(minutes=15), end=noon + timedelta(minutes=30))

    assert spoilt.totals("hourly")["2 12"] == 2
    assert spoilt.totals("daily")["2 0"] == 2


def test_the_bucket_at_the_end_of_the_range_is_not_aggregated(spoilt: Stage, lab: Lab) -> None:
    lab.hook().refresh(start=START, end=START + timedelta(hours=12))

    assert spoilt.totals("hourly")["2 12"] == -1


def test_buckets_of_a_dropped_chunk_keep_their_value(spoilt: Stage, lab: Lab) -> None:
    spoilt.run("SELECT lakets.add_retention_policy('metrics', '1 day')")
    spoilt.run("SELECT lakets.execute_retention('metrics', p_force => true)")

    results = lab.hook().refresh(start=START - DAY, end=START + 3 * DAY)

    assert set(spoilt.totals("hourly").values()) == {-1}
    assert "source is dropped" in str(results[0].detail)


def test_the_refresh_lag_is_no_reason_to_leave_a_range_out(spoilt: Stage, lab: Lab) -> None:
    spoilt.run("UPDATE lakets._rollup_registry SET refresh_lag = '1 hour', last_refreshed_at = now()")

    lab.hook().refresh(start=START, end=START + DAY)

    assert spoilt.totals("hourly")["2 12"] == 2


def test_only_the_named_rollup_and_what_it_reads_are_aggregated_again(spoilt: Stage, lab: Lab) -> None:
    spoilt.rollup("apart")
    spoilt.refresh("apart")
    spoilt.run("UPDATE public._rollup_apart SET total = -1")

    lab.hook().refresh("daily", start=START, end=START + DAY)

    assert (spoilt.totals("daily")["2 0"], spoilt.totals("apart")["2 12"]) == (2, -1)


def test_a_rollup_that_another_session_refreshes_is_contended_and_keeps_its_marks(
    spoilt: Stage, lab: Lab
) -> None:
    lab.conn.autocommit = False
    lab.conn.execute("SELECT lakets.refresh_rollup('hourly', true)")

    (result, *_) = lab.hook().refresh("hourly", start=START, end=START + DAY)
    lab.conn.rollback()
    lab.conn.autocommit = True

    assert (result.outcome, result.retryable) == ("contended", True)
    assert "another session is refreshing it; marked for the next refresh: 24 bucket(s)" in str(result.detail)
    lab.hook().refresh("hourly")
    assert spoilt.totals("hourly")["2 12"] == 2


def test_half_a_range_is_refused(lab: Lab) -> None:
    with pytest.raises(ValueError, match="start and end go together"):
        lab.hook().refresh(start=START)


@pytest.mark.parametrize("engine", ["0.1"])
def test_lakets_01_aggregates_a_range_again_as_well(lab: Lab) -> None:
    lab.table("metrics", days=3)
    lab.rollup("hourly")
    lab.conn.execute("UPDATE public._rollup_hourly SET total = -1")
    now = datetime.now(timezone.utc)

    (result,) = lab.hook().refresh(start=now - 4 * DAY, end=now)

    assert result.outcome == "refreshed"
    assert lab.value("SELECT min(total) FROM public._rollup_hourly") >= 0


def test_an_instant_without_a_zone_is_utc_whatever_the_zone_of_the_session(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.table("metrics")
    lab.rollup("hourly")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    start, end = START.replace(tzinfo=None), (START + DAY).replace(tzinfo=None)

    (made,) = lab.hook().partition(range_start=start, range_end=end)
    (again,) = lab.hook().refresh("hourly", start=start, end=end, since=start)

    assert made.created == ["public.metrics_20240102_000000"]
    assert "2024-01-02 00:00:00+00:00" in str(again.detail)
