"""Job 1: make the chunks that writers will need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.operators.base import LakeTSBaseOperator, as_list

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow.sdk import Context


class LakeTSPartitionOperator(LakeTSBaseOperator):
    """
    Create missing chunks: around the present, or of a given range.

    Returns a dict for each ChronoTable: ``name``, ``outcome`` (created, unchanged, contended, failed),
    ``created`` (the new chunks), ``detail``. A second run finds nothing to do.

    :param tables: ChronoTables as ``schema.table``; None means all. (templated)
    :param past_count: How many chunks to have before the current one.
    :param future_count: How many chunks to have after the current one.
    :param range_start: Make the chunks from this instant on instead; text without a zone is UTC. (templated)
    :param range_end: ... up to this instant. (templated)
    """

    template_fields: Sequence[str] = ("tables", "range_start", "range_end", "lakebase_conn_id")

    def __init__(
        self,
        *,
        tables: str | Sequence[str] | None = None,
        past_count: int = 1,
        future_count: int = 3,
        range_start: datetime | str | None = None,
        range_end: datetime | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("past_count", past_count), ("future_count", future_count)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, not {value}")
        if (range_start is None) != (range_end is None):
            raise ValueError("range_start and range_end go together: give both, or neither")
        self.tables = tables
        self.past_count = past_count
        self.future_count = future_count
        self.range_start = range_start
        self.range_end = range_end

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return what was created for each table."""
        with self.lakets(context) as hook:
            results = hook.partition(
                as_list(self.tables),
                past_count=self.past_count,
                future_count=self.future_count,
                range_start=_instant(self.range_start),
                range_end=_instant(self.range_end),
            )
        return self.report(context, results)


def _instant(value: datetime | str | None) -> datetime | None:
    """Read an instant that a template may have turned into text; that of a missing one says None."""
    from airflow.sdk.timezone import parse

    if not isinstance(value, str):
        return value
    return None if value in ("", "None") else parse(value, timezone="UTC")
