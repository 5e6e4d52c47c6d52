"""Ask a human before data may be lost."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator

from airflow_provider_lakets.compat import answer_limit, fail
from airflow_provider_lakets.operators._arguments import as_batches, as_bool, flat, text
from airflow_provider_lakets.operators._batches import range_in_words, rows_in_words, size_in_words
from airflow_provider_lakets.operators.base import LakeTSJobOperator, raise_problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.hooks.results import Chunk, PlanResult

# The approval lists only so many tables, and chunks of each table, and the number of the others.
TABLES_SHOWN = 20
CHUNKS_SHOWN = 10

CHUNKS_KEY = "chunks"

_DEADLINE = re.compile(r"Without an answer by [-0-9]+ [0-9:]+ UTC")


class LakeTSForceApprovalOperator(LakeTSJobOperator, ApprovalOperator):
    """
    Ask for approval of forced retention, which drops chunks that may not be durable.

    The approval, under *Required Actions* in Airflow, lists for each table the chunks that would be
    lost, with their range, rows and size, and why they are unsafe. Returns the tables to map over:
    all if approved, none if rejected or not answered in time. Without ``force``, and in a dry run,
    it returns all tables without asking. Pushes the unsafe chunks that it asks about to XCom, under
    the key ``chunks``: pass them to ``LakeTSRetentionOperator`` as ``approved_chunks``, so that
    chunks that become due meanwhile are not forced.

    If the task is cleared, Airflow shows the question of the first try again. If another list would
    be right now, the task fails without asking.

    :param tables: The ChronoTables, as ``LakeTSTablesOperator`` returns them; an empty list is
        returned unchanged. (templated)
    :param force: Whether the drop is forced. (templated)
    :param response_timeout: How long to wait for the response; no response is a rejection.
    :param dry_run: Whether this is a dry run, which drops nothing. (templated)
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
        if not isinstance(response_timeout, timedelta):
            raise ValueError(f"response_timeout must be a timedelta, not {response_timeout!r}")  # noqa: TRY004 - as of any setting
        kwargs[answer_limit()] = response_timeout
        super().__init__(subject=text(subject, "subject"), defaults=[self.REJECT], **kwargs)
        # Otherwise the form of the response would ask for the params of the DAG again.
        self.params = type(self.params)()
        self.tables = tables
        self.force = force
        self._response_timeout = response_timeout

    def execute(self, context: Context) -> list[str | list[str]]:
        """Return the tables if nothing is forced; otherwise request the approval and wait."""
        tables, force = as_batches(self.tables, "tables"), as_bool(self.force, "force")
        if not tables or self.is_dry_run or not force:
            context["ti"].xcom_push(key=CHUNKS_KEY, value=[])
            return tables
        with self.lakets(context) as hook:
            plans = hook.plan_retentions(flat(tables), force=False)
            raise_problems(plans)
            self.body = self._question(hook, plans)
        context["ti"].xcom_push(key=CHUNKS_KEY, value=[chunk for plan in plans for chunk in _unsafe(plan)])
        if _without_deadline(shown := self._shown(context)) != _without_deadline(self.body):
            self.log.debug("The question of the earlier try: %s", shown)
            fail(
                "Airflow would show the question of an earlier try of this task again, and its list of "
                "chunks is no longer right. Nothing is dropped. Start a new run instead of clearing this one."
            )
        # Defers the task, which resumes in execute_complete.
        approved: list[str | list[str]] = ApprovalOperator.execute(self, context)
        return approved

    def execute_complete(self, context: Context, event: dict[str, Any]) -> list[str | list[str]]:
        """Return the tables if approved, otherwise none."""
        answer = HITLOperator.execute_complete(self, context, event)
        if self.APPROVE in answer["chosen_options"]:
            self.log.warning("Approved: chunks will be dropped that are not proved durable")
            return as_batches(self.tables, "tables")
        self.log.info("Rejected: nothing will be dropped")
        return []

    def _shown(self, context: Context) -> str:
        """Send the question, and return the one that Airflow shows; it keeps the first."""
        try:
            from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
            from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS
        except ImportError:  # these are internals of Airflow
            return str(self.body)
        users: Any = self.assigned_users or []
        question = CreateHITLDetailPayload(
            ti_id=context["ti"].id,
            options=self.options,
            subject=self.subject,
            body=self.body,
            defaults=self.defaults,
            multiple=self.multiple,
            params=self.serialized_params,
            assigned_users=users,
        )
        return str(getattr(SUPERVISOR_COMMS.send(question), "body", self.body))

    def _question(self, hook: LakeTSHook, plans: Sequence[PlanResult]) -> str:
        """Return in Markdown what force would drop, tables with the most unsafe chunks first."""
        until = datetime.now(timezone.utc) + self._response_timeout
        total = sum(len(plan.planned) + len(plan.deferred) for plan in plans)
        unsafe = sum(len(plan.deferred) for plan in plans)
        lines = [
            "Forced retention drops every chunk past its table's retention, even chunks that are unsafe: "
            f"{total} chunk(s) of {len(plans)} table(s), **{unsafe} of them unsafe**.",
            "",
            f"Connection: `{self.lakebase_conn_id}`. Without an answer by {until:%Y-%m-%d %H:%M} UTC nothing "
            "is dropped.",
            "",
        ]
        ordered = sorted(plans, key=lambda plan: -len(plan.deferred))
        for plan in ordered[:TABLES_SHOWN]:
            lines += _lines_of(plan, _chunks_of(plan, hook))
        if ordered[TABLES_SHOWN:]:
            lines.append(f"- and {len(ordered) - TABLES_SHOWN} more table(s)")
        return "\n".join(lines)


def _without_deadline(question: str) -> str:
    return _DEADLINE.sub("", question)


def _unsafe(plan: PlanResult) -> dict[str, str]:
    return {stays.chunk: stays.reason for stays in plan.deferred}


def _chunks_of(plan: PlanResult, hook: LakeTSHook) -> list[Chunk]:
    (table,) = hook.chronotables([plan.name])
    chunks = hook.show_chunks(table.table_name, schema_name=table.schema_name)
    named = {*plan.planned, *_unsafe(plan)}
    return [chunk for chunk in chunks if chunk.chunk_name in named]


def _lines_of(plan: PlanResult, chunks: Sequence[Chunk]) -> list[str]:
    """Return a list item for a table, with its unsafe chunks, and then the others, below it."""
    unsafe = _unsafe(plan)
    count = len(unsafe) + len(plan.planned)
    lines = [f"- `{plan.name}`: {count} chunk(s) would be dropped, **{len(unsafe)} of them unsafe**"]
    ordered = sorted(chunks, key=lambda chunk: (chunk.chunk_name not in unsafe, chunk.range_start))
    for chunk in ordered[:CHUNKS_SHOWN]:
        what = [
            range_in_words(chunk.range_start, chunk.range_end),
            rows_in_words(chunk.row_count),
            size_in_words(chunk.size_bytes),
        ]
        why = unsafe.get(chunk.chunk_name, "safe")
        lines.append(f"    - `{chunk.chunk_name}`: {', '.join(what)}; {why}")
    if ordered[CHUNKS_SHOWN:]:
        lines.append(f"    - and {len(ordered) - CHUNKS_SHOWN} more chunk(s)")
    return lines
