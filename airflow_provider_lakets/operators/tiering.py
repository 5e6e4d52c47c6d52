"""Job 2: flag the chunks that are proved durable in Unity Catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.assets import tiered_alias
from airflow_provider_lakets.deferral import raise_if_failed
from airflow_provider_lakets.operators import _events
from airflow_provider_lakets.operators._arguments import (
    LEFT_OUT,
    as_names,
    as_names_or_all,
    count,
    names_in,
    switch,
)
from airflow_provider_lakets.operators._batches import batches, label_of_chunks, leave_out, most_tasks
from airflow_provider_lakets.operators._waiting import LakeTSWaitingOperator
from airflow_provider_lakets.operators.base import LakeTSJobOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.hooks.results import JobResult, TierResult


class LakeTSTierCandidatesOperator(LakeTSJobOperator):
    """
    Find the chunks that are due for tiering, in batches to map over.

    Returns a list of lists of chunk names, oldest first. If no chunk is due the list is empty, and
    a task mapped over it is skipped. If there would be too many batches, they grow.

    A given table that does not exist is left out if a ``LakeTSSummaryOperator`` directly follows,
    which then fails with its name after the other tables are tiered. Otherwise the task fails.

    :param tables: ChronoTables as ``schema.table``. Omit it or pass ``*`` for all with a tiering
        policy. (templated)
    :param batch_size: How many chunks one mapped task flags.
    :param max_batches: The largest number of mapped tasks, never more than ``[core]
        max_map_length``.
    :param dry_run: Change nothing: do not record in the policy that it ran. (templated)
    """

    template_fields: Sequence[str] = ("tables", "dry_run", "lakebase_conn_id")
    lists_work = True

    def __init__(
        self,
        *,
        tables: str | Sequence[str] | None = LEFT_OUT,
        batch_size: int = 20,
        max_batches: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tables = self.or_all(tables)
        self.batch_size = count(batch_size, "batch_size")
        self.max_batches = None if max_batches is None else count(max_batches, "max_batches")

    def execute(self, context: Context) -> list[list[str]]:
        """Return the batches."""
        tables = as_names_or_all(self.tables, "tables")
        with self.lakets(context) as hook:
            look = hook.plan_candidates if self.is_dry_run else hook.tier_candidates
            problems: list[JobResult] = []
            chunks = [candidate.chunk_name for candidate in look(tables, left_out=problems)]
        leave_out(self, context, problems, of=len(tables or ()))
        found = batches(chunks, size=self.batch_size, most=most_tasks(self.max_batches))
        self.log.info("Found %d chunk(s) to tier, in %d batch(es)", len(chunks), len(found))
        return found


class LakeTSTierOperator(LakeTSWaitingOperator):
    """
    Flag chunks as tiered, each once it is proved durable in Unity Catalog; nothing is dropped.

    Returns a dict for each chunk: ``name``, ``outcome`` (tiered, deferred, contended, failed) and
    ``detail`` (why). Deferred is not a failure: the change feed has not flushed the chunk's last
    writes, and the next run checks again. With ``deferrable`` the task waits in the triggerer until
    the feed has caught up, and then flags the rest. Each mapped task is named after its chunks.

    A ChronoTable with newly tiered chunks gets an asset event, see
    :func:`airflow_provider_lakets.assets.tiered_asset`.

    :param chunks: Names as :class:`LakeTSTierCandidatesOperator` returns them. (templated)
    :param partitioned: Emit an event for each new chunk, with the start of the chunk as
        partition key (Airflow 3.2 and later). This needs assets as outlets of the task, and starts
        only partitioned DAGs.
    :param deferrable: Whether to wait; the default is ``[operators] default_deferrable``.
    :param poll_interval: Seconds between two checks while waiting.
    :param wait_timeout: How long to wait: a timedelta, or seconds.
    :param fail_when_deferred: Whether to fail if chunks are still deferred after the wait.
    :param dry_run: Report which chunks would be flagged (``planned``), and change nothing.
        (templated)
    """

    template_fields: Sequence[str] = ("chunks", "dry_run", "lakebase_conn_id")
    asset_alias = staticmethod(tiered_alias)
    job = "tier"
    would = "flag"

    def __init__(
        self,
        *,
        chunks: str | Sequence[str],
        partitioned: bool = False,
        fail_when_deferred: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(fail_when_deferred=fail_when_deferred, **kwargs)
        self.chunks = chunks
        self.partitioned = switch(partitioned, "partitioned")
        if partitioned:
            _events.check_partitioned(self)
        _events.declare_alias(self, tiered_alias)

    @property
    def label(self) -> str:
        """A short label for the chunks."""
        try:
            return label_of_chunks(names_in(self.chunks, "chunks"))
        except ValueError:  # execute fails with it
            return "nothing"
        except TypeError:  # it is not rendered
            return ""

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the result of each chunk."""
        chunks = as_names(self.chunks, "chunks")
        with self.lakets(context) as hook:
            if self.is_dry_run:
                _events.record(self, context, tiered_alias(self.lakebase_conn_id), [])
                return self.report_plans(context, hook.plan_tiering(chunks))
            results = hook.tier(chunks, since=_events.started_before(context))
            events = self._events(hook, results)
        waiting = [result.name for result in results if result.outcome == "deferred"]
        # If a retry may help, fail first: the retry will wait.
        if self.deferrable and waiting and all(result.ok or not result.retryable for result in results):
            from airflow_provider_lakets.triggers.tiering import LakeTSTierTrigger

            so_far = [result.as_dict() for result in results]
            self.log.info("Flagged %d chunk(s); waiting for %d", len(results) - len(waiting), len(waiting))
            self.wait(context, LakeTSTierTrigger, so_far=so_far, chunks=waiting)
        plain = self.report(context, results)
        _events.record(self, context, tiered_alias(self.lakebase_conn_id), events)
        return plain

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Flag the deferred chunks, and return the result of each chunk."""
        from airflow_provider_lakets.hooks.results import TierResult

        raise_if_failed(event)
        before = [TierResult.restored(result) for result in self.so_far(context)]
        with self.lakets(context) as hook:
            left = [result.name for result in before if result.outcome != "tiered"]
            again = {result.name: result for result in hook.tier(left, since=_events.started_before(context))}
            results = [again.get(result.name, result) for result in before]
            events = self._events(hook, results)
        plain = self.report(context, results)
        left = [f"{result.name}: {result.detail}" for result in results if result.outcome == "deferred"]
        self.check_deferred(context, event, plain, left)
        _events.record(self, context, tiered_alias(self.lakebase_conn_id), events)
        return plain

    def _events(self, hook: LakeTSHook, results: Sequence[TierResult]) -> list[_events.Event]:
        """Return an event for each ChronoTable with newly tiered chunks."""
        from airflow_provider_lakets.hooks._counted import tiered_by_table

        new = [result.name for result in results if result.new]
        if not new or not all(result.ok for result in results):
            return []
        tables = tiered_by_table(hook, new)
        return _events.tiered(tables, self.lakebase_conn_id, partitioned=self.partitioned)
