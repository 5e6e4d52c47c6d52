"""What to map over: the ChronoTables that a job is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.operators._arguments import as_list
from airflow_provider_lakets.operators.base import LakeTSBaseOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class LakeTSTablesOperator(LakeTSBaseOperator):
    """
    List the ChronoTables, as ``schema.table``, to map over; with none, a task mapped over them is skipped.

    :param tables: Only these; None means all. (templated)
    :param policy: Only those with such a policy: ``tiering`` or ``retention``; tiered retention is both.
    """

    template_fields: Sequence[str] = ("tables", "lakebase_conn_id")

    def __init__(
        self, *, tables: str | Sequence[str] | None = None, policy: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if policy not in (None, "tiering", "retention"):
            raise ValueError(f"policy must be 'tiering', 'retention' or None, not {policy!r}")
        self.tables = tables
        self.policy = policy

    def execute(self, context: Context) -> list[str]:
        """Return their names."""
        wanted = as_list(self.tables)
        with self.lakets(context) as hook:
            found = [table.name for table in hook.chronotables(wanted, policy=self.policy)]
        if wanted is not None and len(found) < len(wanted):
            self.log.warning("Not all of these have a %s policy: %s", self.policy, ", ".join(wanted))
        return found
