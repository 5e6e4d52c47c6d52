"""Job 1: create the chunks that writers will need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.operators._arguments import (
    LEFT_OUT,
    as_names_or_all,
    as_range,
    check_range,
    count,
)
from airflow_provider_lakets.operators.base import LakeTSJobOperator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow.sdk import Context


class LakeTSPartitionOperator(LakeTSJobOperator):
    """
    Create missing chunks around the present, or in a given range.

    Returns a dict for each ChronoTable: ``name``, ``outcome`` (created, unchanged, contended,
    failed), ``created`` (the new chunks), ``detail``. A second run finds nothing to do.

    :param tables: ChronoTables as ``schema.table``. Omit it or pass ``*`` for all. (templated)
    :param past_count: How many chunks to keep before the current one.
    :param future_count: How many chunks to keep after the current one.
    :param range_start: Create the chunks of a range instead, from this time on. A time without a
        zone is UTC; ``*`` means no range. (templated)
    :param range_end: The end of the range. (templated)
    :param dry_run: Report in ``planned`` what would be created, and change nothing. (templated)
    """

    template_fields: Sequence[str] = (
        "tables",
        "range_start",
        "range_end",
        "dry_run",
        "lakebase_conn_id",
    )
    job = "partitions"
    would = "create"

    def __init__(
        self,
        *,
        tables: str | Sequence[str] | None = LEFT_OUT,
        past_count: int = 1,
        future_count: int = 3,
        range_start: datetime | str | None = LEFT_OUT,
        range_end: datetime | str | None = LEFT_OUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tables = self.or_all(tables)
        self.past_count = count(past_count, "past_count", least=0)
        self.future_count = count(future_count, "future_count", least=0)
        self.range_start = self.or_all(range_start)
        self.range_end = self.or_all(range_end)
        check_range(self.range_start, self.range_end)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return what was created for each table."""
        tables = as_names_or_all(self.tables, "tables")
        start, end = as_range(self.range_start, self.range_end)
        arguments: dict[str, Any] = {
            "past_count": self.past_count,
            "future_count": self.future_count,
            "range_start": start,
            "range_end": end,
        }
        with self.lakets(context) as hook:
            if self.is_dry_run:
                return self.report_plans(context, hook.plan_partitions(tables, **arguments))
            results = hook.partition(tables, **arguments)
        return self.report(context, results)
