"""Job 3: reclaim the space of chunks that are past retention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.deferral import raise_if_failed
from airflow_provider_lakets.operators._arguments import (
    LEFT_OUT,
    as_batches,
    as_bool,
    as_name,
    as_names,
    flat,
    names_in,
)
from airflow_provider_lakets.operators._batches import label_of_names
from airflow_provider_lakets.operators._waiting import LakeTSWaitingOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_lakets.hooks.results import RetentionResult


class LakeTSRetentionOperator(LakeTSWaitingOperator):
    """
    Drop the chunks of one or more ChronoTables that are past retention from Lakebase.

    Chunks of a synced table are dropped only if they are proved durable in Unity Catalog, where
    nothing is ever deleted. Returns a dict: ``name``, ``outcome`` (dropped, deferred, trimmed,
    unchanged, contended, failed), ``dropped`` (chunks), ``deferred`` (chunks past retention that
    stay, with the reason), ``trimmed`` (how many rows of dropped chunks were removed from the
    shadow, if the policy sets that), ``detail``. For a list of tables it returns a list of such
    dicts; a table that fails does not stop the others.

    With ``deferrable`` the task waits in the triggerer until the change feed has flushed the
    deferred chunks and every RollUp has absorbed them. Then it drops them. Chunks that are still
    deferred are reported, and fail the task only with ``fail_when_deferred``.

    :param table: The ChronoTable as ``schema.table``, or a list of them. (templated)
    :param schema: The schema, if ``table`` is a name without schema. (templated)
    :param force: Also drop chunks that are not proved durable: data may be lost. (templated)
    :param approved_chunks: The chunks that ``force`` is for, such as those that
        ``LakeTSForceApprovalOperator`` pushes to XCom under the key ``chunks``; an empty list for
        none. Left out, it is for all. (templated)
    :param dry_run: Report in ``planned`` what would be dropped, and change nothing. (templated)
    :param deferrable: Whether to wait; the default is ``[operators] default_deferrable``.
    :param poll_interval: Seconds between two checks while waiting.
    :param wait_timeout: How long to wait: a timedelta, or seconds.
    :param fail_when_deferred: Whether to fail if chunks are still deferred after the wait.
    """

    template_fields: Sequence[str] = (
        "table",
        "schema",
        "force",
        "approved_chunks",
        "dry_run",
        "lakebase_conn_id",
    )
    job = "retain"
    would = "drop"

    def __init__(
        self,
        *,
        table: str | Sequence[str],
        schema: str | None = LEFT_OUT,
        force: bool | str = False,
        approved_chunks: Sequence[str] | str | None = LEFT_OUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._has_schema = not self.is_left_out(schema)
        self.table = table
        self.schema = schema if self._has_schema else None
        self.force = force
        self._has_approved = not self.is_left_out(approved_chunks)
        self.approved_chunks = approved_chunks if self._has_approved else None

    @property
    def forced(self) -> dict[str, Any]:
        """The arguments about force to pass to the hook."""
        forced: dict[str, Any] = {"force": as_bool(self.force, "force")}
        if self._has_approved:
            forced["approved"] = set(flat(as_batches(self.approved_chunks, "approved_chunks")))
        return forced

    @property
    def names(self) -> list[str]:
        """The ChronoTables to pass to the hook."""
        names = as_names(self.table, "table")
        if not self._has_schema:
            return names
        schema = as_name(self.schema, "schema")
        return [f"{schema}.{name}" for name in names]

    @property
    def label(self) -> str:
        """A short label for the tables."""
        try:
            return label_of_names(names_in(self.table, "table"))
        except ValueError:  # execute fails with it
            return "nothing"
        except TypeError:  # it is not rendered
            return ""

    def execute(self, context: Context) -> Any:
        """Return what was dropped and what was deferred."""
        forced, names = self.forced, self.names
        with self.lakets(context) as hook:
            if self.is_dry_run:
                plans = hook.plan_retentions(names, force=forced["force"])
                return self.shaped(self.report_plans(context, plans))
            results = hook.retain_all(names, **forced)
        self._log(results)
        waiting = {one.name: [stays.chunk for stays in one.deferred] for one in results if one.deferred}
        # If a retry may help, fail first: the retry will wait.
        if self.deferrable and waiting and all(one.ok or not one.retryable for one in results):
            from airflow_provider_lakets.triggers.retention import LakeTSRetentionTrigger

            (table, chunks), *others = waiting.items()
            so_far = self.shaped([one.as_dict() for one in results])
            where = {"table": table, "chunks": chunks, "others": dict(others)}
            self.wait(context, LakeTSRetentionTrigger, so_far=so_far, **where)
        return self.shaped(self.report(context, results))

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Drop the deferred chunks, and return what was dropped before and after the wait."""
        from airflow_provider_lakets.hooks.results import RetentionResult

        raise_if_failed(event)
        so_far = self.so_far(context)
        plain = [so_far] if isinstance(so_far, dict) else so_far
        before = {one["name"]: RetentionResult.restored(one) for one in plain}
        waited = [name for name, result in before.items() if result.deferred]
        with self.lakets(context) as hook:
            done = hook.retain_all(waited, **self.forced)
        self._log(done)
        after = {result.name: result.after(before[result.name]) for result in done}
        results = [after.get(name, result) for name, result in before.items()]
        reported = self.shaped(self.report(context, results))
        left = [f"{stays.chunk}: {stays.reason}" for result in results for stays in result.deferred]
        self.check_deferred(context, event, reported, left)
        return reported

    def shaped(self, results: list[dict[str, Any]]) -> Any:
        """Return a dict for one table, or a list for a list of tables."""
        return results[0] if isinstance(self.table, (str, int)) else results

    def _log(self, results: Sequence[RetentionResult]) -> None:
        for result in results:
            for chunk in result.dropped:
                self.log.info("Dropped %s", chunk)
            for stays in result.deferred:
                self.log.info("Deferred %s: %s", stays.chunk, stays.reason)
            if result.trimmed:
                self.log.info(
                    "Removed %s row(s) of dropped chunks of %s from the shadow", result.trimmed, result.name
                )
