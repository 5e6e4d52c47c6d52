"""Job 3: give the space of chunks back that are past retention."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.deferral import raise_if_failed
from airflow_provider_lakets.operators._arguments import as_bool
from airflow_provider_lakets.operators._waiting import LakeTSWaitingOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_lakets.hooks.results import RetentionResult


class LakeTSRetentionOperator(LakeTSWaitingOperator):
    """
    Drop the chunks of one ChronoTable that are past its retention from Lakebase.

    A synced table loses only what is proved durable in Unity Catalog, where nothing is ever deleted.
    Returns a dict: ``name``, ``outcome`` (dropped, deferred, trimmed, unchanged, contended, failed),
    ``dropped`` (chunks), ``deferred`` (chunks past retention that stay, with the reason), ``trimmed`` (how
    many rows of dropped chunks were removed from the shadow, where the policy asks for it), ``detail``.

    With ``deferrable`` the task waits, in the triggerer, until what keeps chunks from being dropped has gone:
    the change feed has flushed them, each RollUp has absorbed them. Then it drops them. What is deferred even
    then is reported, and is no failure unless asked.

    :param table: The ChronoTable as ``schema.table``. (templated)
    :param schema: Its schema, when ``table`` is the bare name. (templated)
    :param force: Drop even what is not proved durable: data may be lost for good. (templated)
    :param dry_run: Tell what would be dropped, in ``planned`` instead of ``dropped``. (templated)
    :param deferrable: Whether to wait; by default ``[operators] default_deferrable``.
    :param poll_interval: Seconds between two looks while waiting.
    :param wait_timeout: How long to wait: a timedelta, or seconds.
    :param fail_when_deferred: Whether to fail when chunks are still deferred after the wait.
    """

    template_fields: Sequence[str] = ("table", "schema", "force", "dry_run", "lakebase_conn_id")
    mapped_name = "{{ task.table }}"
    would = "drop"

    def __init__(
        self, *, table: str, schema: str | None = None, force: bool | str = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.schema = schema
        self.force = force

    @property
    def name(self) -> str:
        """The ChronoTable as the hook takes it."""
        return f"{self.schema}.{self.table}" if self.schema else self.table

    def execute(self, context: Context) -> dict[str, Any]:
        """Return what was dropped and what was deferred."""
        force = as_bool(self.force, "force")
        with self.lakets(context) as hook:
            if self.is_dry_run:
                (plan,) = self.report_plans(context, [hook.plan_retention(self.name, force=force)])
                return plan
            result = hook.retain(self.name, force=force)
        self._log(result)
        if self.deferrable and result.ok and result.deferred:
            from airflow_provider_lakets.triggers.retention import LakeTSRetentionTrigger

            chunks = [stays.chunk for stays in result.deferred]
            so_far = result.as_dict()
            self.wait(context, LakeTSRetentionTrigger, so_far=so_far, table=self.name, chunks=chunks)
        (plain,) = self.report(context, [result])
        return plain

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Drop what was deferred, and return what was dropped before and after the wait."""
        raise_if_failed(event)
        before = self.so_far(context)
        with self.lakets(context) as hook:
            result = hook.retain(self.name, force=as_bool(self.force, "force"))
        self._log(result)
        dropped = [*before["dropped"], *result.dropped]
        outcome = "dropped" if dropped and result.ok else result.outcome
        trimmed = before.get("trimmed", 0) + result.trimmed
        result = dataclasses.replace(result, dropped=dropped, outcome=outcome, trimmed=trimmed)
        (plain,) = self.report(context, [result])
        left = [f"{stays.chunk}: {stays.reason}" for stays in result.deferred]
        self.check_deferred(context, event, plain, left)
        return plain

    def _log(self, result: RetentionResult) -> None:
        for chunk in result.dropped:
            self.log.info("Dropped %s", chunk)
        for stays in result.deferred:
            self.log.info("Deferred %s: %s", stays.chunk, stays.reason)
        if result.trimmed:
            self.log.info("Removed %s row(s) of dropped chunks from the shadow", result.trimmed)
