"""Shared helpers of the RollUp tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.stage import Stage

SUMS = (
    "SELECT lakets.time_bucket('1 hour', at) AS bucket, sum(value)::bigint AS total, count(*)::bigint AS n"
    " FROM public.metrics GROUP BY 1"
)


def make_layers(stage: Stage) -> None:
    stage.table(days=range(1, 15))
    stage.rollup("hourly")
    stage.rollup("daily", reads="hourly", every="1 day")
    stage.rollup("weekly", reads="daily", every="7 days")


def drop_days(stage: Stage, last: int) -> None:
    """Drop the chunks up to a day, as an administrator can."""
    stage.run("UPDATE lakets._chunk_metadata SET status = 'tiered' WHERE range_start > %s", stage.at(last))
    stage.run("SELECT lakets.drop_chunks('metrics', '1 day')")
    stage.run("UPDATE lakets._chunk_metadata SET status = 'active' WHERE status = 'tiered'")
