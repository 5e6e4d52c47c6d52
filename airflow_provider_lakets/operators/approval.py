"""Ask a human before data may be lost."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator

from airflow_provider_lakets.compat import answer_limit
from airflow_provider_lakets.operators._arguments import as_bool, as_list
from airflow_provider_lakets.operators.base import LakeTSJobOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_lakets.hooks.results import PlanResult


class LakeTSForceApprovalOperator(LakeTSJobOperator, ApprovalOperator):
    """
    Ask before retention by force, which drops chunks that are not proved durable: their data may be lost.

    The question, under *Required Actions* in Airflow, lists for each table what would be lost. Returns the
    tables to go on with, to map over: all of them when approved, none when rejected or not answered in time.
    Without ``force``, and in a dry run, nobody is asked.

    :param tables: The ChronoTables, as ``LakeTSTablesOperator`` returns them. (templated)
    :param force: Whether force is asked for. (templated)
    :param response_timeout: How long to wait for the answer; then it is a rejection.
    :param dry_run: Whether nothing will be dropped anyway. (templated)
    """

    template_fields: Sequence[str] = ("tables", "force", "dry_run", "lakebase_conn_id", "subject", "body")

    def __init__(
        self,
        *,
        tables: Any,
        force: bool | str = False,
        response_timeout: timedelta = timedelta(days=1),
        subject: str = "Drop chunks that are not proved durable in Unity Catalog?",
        **kwargs: Any,
    ) -> None:
        kwargs[answer_limit()] = response_timeout
        super().__init__(subject=subject, defaults=[self.REJECT], **kwargs)
        # Else the form of the answer would ask for the params of the DAG once more.
        self.params = type(self.params)()
        self.tables = tables
        self.force = force

    def execute(self, context: Context) -> list[str]:
        """Return the tables at once when nothing is forced; else write the question, and wait."""
        tables = as_list(self.tables) or []
        if not tables or self.is_dry_run or not as_bool(self.force, "force"):
            return tables
        with self.lakets(context) as hook:
            self.body = _question([(hook.plan_retention(table, force=False), table) for table in tables])
        # Gives the worker up; goes on in execute_complete.
        approved: list[str] = ApprovalOperator.execute(self, context)
        return approved

    def execute_complete(self, context: Context, event: dict[str, Any]) -> list[str]:
        """Return the tables when approved, else none."""
        answer = HITLOperator.execute_complete(self, context, event)
        if self.APPROVE in answer["chosen_options"]:
            self.log.warning("Approved: chunks will be dropped that are not proved durable")
            return as_list(self.tables) or []
        self.log.info("Rejected: nothing will be dropped")
        return []


def _question(plans: list[tuple[PlanResult, str]]) -> str:
    """Return, in Markdown, what force would drop."""
    lines = [
        "Retention by force drops every chunk past its table's retention, whatever stands against it.",
        "",
    ]
    for plan, table in plans:
        kept = len(plan.deferred)
        lines.append(
            f"- `{table}`: {kept + len(plan.planned)} chunk(s) would be dropped, **{kept} of them unsafe**"
        )
        reasons = sorted({stays.reason for stays in plan.deferred})
        lines += [f"    - {reason}" for reason in reasons[:5]]
    return "\n".join(lines)
