"""List the ChronoTables for a job to map over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.operators._arguments import LEFT_OUT, as_names_or_all, count
from airflow_provider_lakets.operators._batches import batches, leave_out, most_tasks
from airflow_provider_lakets.operators.base import LakeTSBaseOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_lakets.hooks.results import JobResult


class LakeTSTablesOperator(LakeTSBaseOperator):
    """
    List the ChronoTables as ``schema.table`` to map over; an empty list skips the mapped tasks.

    If there are more tables than tasks may be mapped, it returns a list of batches instead.

    A given table that does not exist is left out if a ``LakeTSSummaryOperator`` directly follows,
    which then fails with its name after the other tables are done. Otherwise the task fails.

    :param tables: Only these tables. Omit it or pass ``*`` for all. (templated)
    :param policy: Only tables with this policy: ``tiering`` or ``retention``. Tiered retention
        counts as both.
    :param max_batches: The largest number of mapped tasks, never more than ``[core]
        max_map_length``.
    """

    template_fields: Sequence[str] = ("tables", "lakebase_conn_id")
    lists_work = True

    def __init__(
        self,
        *,
        tables: str | Sequence[str] | None = LEFT_OUT,
        policy: str | None = None,
        max_batches: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if policy not in (None, "tiering", "retention"):
            raise ValueError(f"policy must be 'tiering', 'retention' or None, not {policy!r}")
        self.max_batches = None if max_batches is None else count(max_batches, "max_batches")
        self.tables = self.or_all(tables)
        self.policy = policy

    def execute(self, context: Context) -> list[str] | list[list[str]]:
        """Return the names, or batches of names."""
        wanted = as_names_or_all(self.tables, "tables")
        with self.lakets(context) as hook:
            problems: list[JobResult] = []
            tables = hook.chronotables(wanted, policy=self.policy, left_out=problems)
            found = [table.name for table in tables]
        leave_out(self, context, problems, of=len(wanted or ()))
        if wanted is not None and len(found) + len(problems) < len(wanted):
            self.log.warning("Not all of these have a %s policy: %s", self.policy, ", ".join(wanted))
        if len(found) <= (most := most_tasks(self.max_batches)):
            return found
        grouped = batches(found, size=1, most=most)
        self.log.info("Found %d tables, in %d batches", len(found), len(grouped))
        return grouped
