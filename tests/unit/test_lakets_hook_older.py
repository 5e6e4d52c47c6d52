"""The hook corrects results that are wrong or missing in LakeTS 0.1.3."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.commands.status import show
from airflow_provider_lakets.exceptions import LakeTSNotInstalledError

if TYPE_CHECKING:
    from tests.lab import Lab


@pytest.fixture
def engine() -> str:
    return "0.1"


@pytest.fixture
def tiered(lab: Lab) -> Lab:
    """Yield a synced table that has a policy of type tiered_retention only, and is streamed."""
    lab.synced(days=8)
    lab.flush()
    return lab


def test_a_table_with_only_a_tiered_retention_policy_has_a_feed_status(tiered: Lab) -> None:
    assert tiered.values("SELECT table_name FROM lakets.show_tiering_status()") == []

    (feed,) = tiered.hook().show_tiering_status("metrics")

    assert (feed.table, feed.after, feed.cdf_status) == ("public.metrics", "2 days", "STREAMING")
    assert feed.caught_up
    assert feed.pending_chunks >= 5


def test_the_feed_status_of_a_tiering_policy_is_that_of_the_engine(lab: Lab) -> None:
    lab.synced(days=8)
    lab.conn.execute("SELECT lakets.remove_retention_policy('metrics')")
    lab.conn.execute("SELECT lakets.add_tiering_policy('metrics', '3 days')")
    lab.flush()

    (feed,) = lab.hook().show_tiering_status("metrics")

    (row,) = lab.conn.execute(
        "SELECT after, active_chunks, tiered_chunks, pending_chunks, reclaimable_bytes, reclaimed_bytes,"
        " cdf_status, cdf_lag_bytes, caught_up, last_run_at FROM lakets.show_tiering_status('metrics')"
    )
    assert tuple(feed.as_dict().values())[1:] == row


@pytest.mark.parametrize("policy", ["none", "tiered_retention"])
def test_status_does_not_call_a_synced_table_not_synced(
    tiered: Lab, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if policy == "none":
        tiered.conn.execute("SELECT lakets.remove_retention_policy('metrics')")

    show(tiered.hook().status(), [], as_json=False)

    output = capsys.readouterr().out
    assert "STREAMING" in output
    assert "not synced" not in output


def test_the_metrics_that_always_fail_there_are_not_called_our_fault(tiered: Lab) -> None:
    with pytest.raises(LakeTSNotInstalledError, match="always fails"):
        tiered.hook().lakets_metrics()


def test_a_rollup_that_names_what_it_reads_is_made(lab: Lab) -> None:
    lab.table(days=3)
    lab.rollup("hourly")

    lab.hook().create_rollup(
        "daily",
        "SELECT date_trunc('day', bucket) AS bucket, sum(total) AS total FROM _rollup_hourly GROUP BY 1",
        bucket_interval="1 day",
        source_table="metrics",
        depends_on=["hourly"],
    )

    assert [rollup.depends_on for rollup in lab.hook().rollups()] == [["hourly"], []]


def test_a_range_ends_before_its_end(lab: Lab) -> None:
    lab.table(days=3)
    lab.rollup("hourly")
    end = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)

    assert lab.hook().invalidate_rollup_range("hourly", end - timedelta(days=1), end) == 24
