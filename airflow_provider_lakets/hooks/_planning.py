"""Dry runs of the jobs, which change nothing."""

from __future__ import annotations

import contextlib
import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.hooks._cascade import run_cascade, with_dependencies
from airflow_provider_lakets.hooks._counted import tier
from airflow_provider_lakets.hooks._deferred import past_retention, why_not_tiered
from airflow_provider_lakets.hooks._inventory import LakeTSInventory
from airflow_provider_lakets.hooks._outcomes import each
from airflow_provider_lakets.hooks._session import Sessions
from airflow_provider_lakets.hooks.functions.rows import several
from airflow_provider_lakets.hooks.results import DeferredChunk, PlanResult, RefreshResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    import psycopg
    from typing_extensions import Self

    from airflow_provider_lakets.hooks.results import ChronoTable, JobResult, Rollup, TierCandidate

NEWEST_CHUNK = "SELECT coalesce(max(id), 0) AS id FROM lakets._chunk_metadata"
CHUNKS_SINCE = """
SELECT chunk_name FROM lakets._chunk_metadata
 WHERE chronotable_id = %(id)s AND id > %(newest)s ORDER BY range_start
"""

TOO_SOON = """
SELECT refresh_lag FROM lakets._rollup_registry
 WHERE name = %(name)s AND last_refreshed_at + refresh_lag > now()
"""


class LakeTSPlanning(LakeTSInventory):
    """
    Base of LakeTSHook: the dry runs.

    If LakeTS has no function that only reports, the job runs in a transaction that is rolled back.
    The result is that of a real run, and the locks of the job are held during that time. Retention
    is never run this way.
    """

    @contextlib.contextmanager
    def _rehearsal(self) -> Iterator[Self]:
        """Yield a hook whose calls run in one transaction, which is rolled back."""
        with self.session(), self.borrow_session() as conn, conn.transaction(force_rollback=True):
            yield self._within(conn)

    def _within(self, conn: psycopg.Connection[Any]) -> Self:
        """Return a hook whose calls run in the transaction of this session."""
        twin = copy.copy(self)
        twin._sessions = _OneSession(conn)
        twin._tries = 1  # an error ends the transaction, so a retry cannot help
        return twin

    def plan_partitions(self, tables: Iterable[str] | None = None, **arguments: Any) -> list[PlanResult]:
        """
        Return which chunks :meth:`~LakeTSHook.partition` would create.

        :param tables: The ChronoTables; None for all.
        :param arguments: The other arguments of that method.
        """
        with self.session():
            return each(
                PlanResult,
                [
                    (name, partial(self._plan_partitions_of, table or name, arguments))
                    for name, table in self._to_do(tables)
                ],
            )

    def _plan_partitions_of(self, table: ChronoTable | str, arguments: dict[str, Any]) -> PlanResult:
        if isinstance(table, str):
            self._unknown(table)
        with self._rehearsal() as twin:
            newest = newest_chunk(twin)
            twin.ensure_partitions(table.id, **arguments)
            return _planned(table.name, chunks_since(twin, table, newest))

    def plan_candidates(
        self, tables: Iterable[str] | None = None, *, left_out: list[JobResult] | None = None
    ) -> list[TierCandidate]:
        """
        List the chunks that are due for tiering, without recording that they were listed.

        :param tables: Only of these ChronoTables; None for all with a tiering policy.
        :param left_out: As for :meth:`tier_candidates`.
        """
        with self._rehearsal() as twin:
            return twin.tier_candidates(tables, left_out=left_out)

    def plan_tiering(self, chunks: Iterable[str]) -> list[PlanResult]:
        """
        Return the chunks that :meth:`~LakeTSHook.tier` would flag, and the reasons for the others.

        :param chunks: The names of the chunks.
        """
        with self.session():
            return each(
                PlanResult, [(chunk, partial(self._plan_tiering_of, chunk)) for chunk in several(chunks)]
            )

    def _plan_tiering_of(self, chunk: str) -> PlanResult:
        with self._rehearsal() as twin:
            if tier(twin, chunk)[0]:
                return _planned(chunk, [chunk])
        return PlanResult(chunk, "deferred", why_not_tiered(self, chunk))

    def plan_retention(self, table: str, *, force: bool = False) -> PlanResult:
        """
        Return the chunks that :meth:`~LakeTSHook.retain` would drop, and why others would stay.

        :param table: The ChronoTable.
        :param force: Whether chunks that are not proved durable would be dropped as well.
        """
        with self.session():
            (found,) = self.chronotables([table])
            (result,) = each(PlanResult, [(found.name, partial(self._plan_retention_of, found, force=force))])
            return result

    def plan_retentions(self, tables: Iterable[str], *, force: bool = False) -> list[PlanResult]:
        """
        Return the same for several ChronoTables.

        :param tables: The ChronoTables.
        :param force: Whether chunks that are not proved durable would be dropped as well.
        """
        names = several(tables)
        if len(names) == 1:
            return [self.plan_retention(names[0], force=force)]
        with self.session():
            return each(
                PlanResult, [(name, partial(self.plan_retention, name, force=force)) for name in names]
            )

    def _plan_retention_of(self, table: ChronoTable, *, force: bool) -> PlanResult:
        past = past_retention(self, table)
        planned = [chunk.chunk for chunk in past if force or chunk.due]
        deferred = [DeferredChunk(one.chunk, one.reason) for one in past if one.reason and not force]
        outcome = "planned" if planned else "deferred" if deferred else "unchanged"
        return PlanResult(table.name, outcome, planned=planned, deferred=deferred)

    def plan_refresh(
        self,
        rollup: str | None = None,
        *,
        force: bool = False,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> list[PlanResult]:
        """
        Return which RollUps :meth:`~LakeTSHook.refresh` would refresh, in order.

        :param rollup: Only this RollUp and those it reads; None for all.
        :param force: Whether the refresh_lag would be ignored.
        :param start: The start of a range whose buckets would be re-aggregated.
        :param end: The end of the range.
        """
        with self.session():
            rollups = with_dependencies(self._known_rollups(rollup), rollup)
            plans: dict[str, PlanResult] = {}

            def plan(name: str) -> RefreshResult:
                plans[name] = self._plan_refresh_of(rollups[name], force=force, start=start, end=end)
                return RefreshResult(name, "unchanged")

            done = run_cascade(rollups, plan, parallelism=1, stop=self.cancel)
        return [
            plans.get(one.name) or PlanResult(one.name, one.outcome, one.detail, one.retryable)
            for one in done
        ]

    def _plan_refresh_of(
        self, rollup: Rollup, *, force: bool, start: datetime | None, end: datetime | None
    ) -> PlanResult:
        if start is not None and end is not None:
            with self._rehearsal() as twin:
                count = twin.invalidate_rollup_range(rollup.name, start, end)
            return PlanResult(rollup.name, "planned", buckets_of_range(count, start, end))
        early = self.query(TOO_SOON, {"name": rollup.name}, doing=f"Looking up RollUp {rollup.name}")
        if early and not force:
            detail = f"refreshed less than {early[0]['refresh_lag']} ago (its refresh_lag)"
            return PlanResult(rollup.name, "unchanged", detail)
        sources = ", ".join([*rollup.depends_on, *([rollup.source] if rollup.source else [])])
        return PlanResult(rollup.name, "planned", f"reads {sources or 'nothing'}; last: {_last(rollup)}")


def buckets_of_range(count: int, start: datetime, end: datetime) -> str:
    """Return as text how many buckets of a range are re-aggregated."""
    if not count:
        return f"no bucket from {start} to {end} can be re-aggregated: their source is dropped"
    return f"{count} bucket(s) from {start} to {end}"


def _last(rollup: Rollup) -> str:
    return str(rollup.last_refreshed_at or "never refreshed")


def newest_chunk(hook: LakeTSPlanning) -> int:
    """Return the id of the newest chunk of all tables."""
    (row,) = hook.query(NEWEST_CHUNK, doing="Looking for the newest chunk")
    return int(row["id"])


def chunks_since(hook: LakeTSPlanning, table: ChronoTable, newest: int) -> list[str]:
    """
    Return a table's new chunks since then, including those of a call whose result was lost.

    :param hook: The hook.
    :param table: The ChronoTable.
    :param newest: The earlier result of :func:`newest_chunk`.
    """
    rows = hook.query(
        CHUNKS_SINCE, {"id": table.id, "newest": newest}, doing=f"Listing the new chunks of {table.name}"
    )
    return [row["chunk_name"] for row in rows]


def _planned(name: str, what: list[str]) -> PlanResult:
    return PlanResult(name, "planned" if what else "unchanged", planned=what)


class _OneSession(Sessions):
    """Lend the same session to every call, and do not close it."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        super().__init__(lambda: conn)

    def _give_back(self, conn: psycopg.Connection[Any]) -> None:
        pass
