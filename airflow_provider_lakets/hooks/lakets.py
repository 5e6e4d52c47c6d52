"""LakeTSHook: the four jobs and their results."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.hooks import _counted as counted
from airflow_provider_lakets.hooks._calls import as_utc
from airflow_provider_lakets.hooks._cascade import run_cascade, with_dependencies
from airflow_provider_lakets.hooks._contract import DROP_BATCH
from airflow_provider_lakets.hooks._deferred import (
    past_retention,
    standing,
    why_not_dropped,
    why_not_refreshed,
    why_not_tiered,
)
from airflow_provider_lakets.hooks._history import noted
from airflow_provider_lakets.hooks._outcomes import GENERAL, Locked, attempt, each, failure, not_tried
from airflow_provider_lakets.hooks._planning import (
    LakeTSPlanning,
    buckets_of_range,
    chunks_since,
    newest_chunk,
)
from airflow_provider_lakets.hooks.functions.rows import several
from airflow_provider_lakets.hooks.results import (
    PartitionResult,
    RefreshResult,
    RetentionResult,
    TierResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import datetime

    import psycopg

    from airflow_provider_lakets.hooks.results import ChronoTable

# The most partitions that one transaction creates, while it holds the lock of the table.
CREATE_BATCH = 100

LOCK_MAINTENANCE = "SELECT lakets._lock_maintenance((lakets._chronotable(%(table)s, %(schema)s)).relation)"


class LakeTSHook(LakeTSPlanning):
    """
    The LakeTS lifecycle on a Lakebase connection.

    A method with the name of a LakeTS function calls that function and raises its errors. A job
    (:meth:`partition`, :meth:`tier`, :meth:`retain`, :meth:`refresh`) processes all its tables,
    chunks or RollUps, and reports the failure of one in its result.

    :param lakebase_conn_id: The connection of type ``lakebase``.
    :param tries: The largest number of times that a call is made after a lost connection or a lock
        timeout.
    """

    def partition(
        self,
        tables: Iterable[str] | None = None,
        *,
        past_count: int = 1,
        future_count: int = 3,
        range_start: datetime | None = None,
        range_end: datetime | None = None,
    ) -> list[PartitionResult]:
        """
        Create missing chunks; a table that fails does not stop the others.

        :param tables: The ChronoTables; None for all.
        :param past_count: How many chunks to keep before the current one.
        :param future_count: How many chunks to keep after the current one.
        :param range_start: The start of a range to create chunks for instead.
        :param range_end: The end of the range.
        """
        arguments: dict[str, Any] = {
            "past_count": past_count,
            "future_count": future_count,
            "range_start": range_start,
            "range_end": range_end,
        }
        with self.session(), noted(self, "partitions") as done:
            found = self._to_do(tables)
            # Earlier batches are committed if a later one fails, so their chunks are reported, too.
            created: list[list[str]] = [[] for _ in found]
            results = each(
                PartitionResult,
                [
                    (name, partial(self._create_all, table or name, arguments, names))
                    for (name, table), names in zip(found, created, strict=True)
                ],
            )
            results = [
                dataclasses.replace(result, created=names)
                for result, names in zip(results, created, strict=True)
            ]
            done += results
        return results

    def _create_all(
        self, table: ChronoTable | str, arguments: dict[str, Any], created: list[str]
    ) -> PartitionResult:
        """Create each batch in a separate transaction, if the installed LakeTS supports it."""
        if isinstance(table, str):
            self._unknown(table)
        newest = newest_chunk(self)
        batched = self.supports("_ensure_partitions", "p_max_chunks")
        try:
            while self.ensure_partitions(table.id, **arguments, max_chunks=CREATE_BATCH):
                if not batched:
                    break
        except LakeTSError:
            with contextlib.suppress(LakeTSError):
                created += chunks_since(self, table, newest)
            raise
        created += chunks_since(self, table, newest)
        return PartitionResult(table.name, "created" if created else "unchanged")

    def tier(self, chunks: Iterable[str], *, since: datetime | None = None) -> list[TierResult]:
        """
        Flag the chunks that are proved durable in Unity Catalog; the others are deferred.

        Once two chunks of a table were locked by another session, its later ones are not tried: a
        locked table delays the others by seconds only.

        :param chunks: The names of the chunks.
        :param since: A chunk that was flagged at this time or later counts as new, even if another
            call flagged it.
        """
        names = several(chunks)
        locked = Locked(partial(counted.of_same_table, self, names))
        with self.session(), noted(self, "tier") as done:
            results = each(
                TierResult, [(chunk, partial(self._tier_one, chunk, since, locked)) for chunk in names]
            )
            done += results
        return results

    def _tier_one(self, chunk: str, since: datetime | None, locked: Locked) -> TierResult:
        with locked.watch(chunk):
            tiered, was_before = counted.tier(self, chunk, since)
        if tiered:
            return TierResult(chunk, "tiered", new=not was_before)
        return TierResult(chunk, "deferred", why_not_tiered(self, chunk))

    def retain(
        self, table: str, *, force: bool = False, approved: Collection[str] | None = None
    ) -> RetentionResult:
        """
        Drop a ChronoTable's chunks past retention, in batches, and report why others stay.

        Then remove their rows from the shadow, if the policy sets that.

        :param table: The ChronoTable.
        :param force: Also drop chunks that are not proved durable in Unity Catalog.
        :param approved: The chunks that ``force`` is for; None for all. It ends at the first chunk
            that is not among them.
        """
        with self.session(), noted(self, "retain") as done:
            (found,) = self.chronotables([table])
            result, _ = self._retain(found, force=force, approved=approved)
            done.append(result)
        return result

    def retain_all(
        self, tables: Iterable[str], *, force: bool = False, approved: Collection[str] | None = None
    ) -> list[RetentionResult]:
        """
        Do the same for several ChronoTables; one that fails does not stop the others.

        :param tables: The ChronoTables.
        :param force: Also drop chunks that are not proved durable in Unity Catalog.
        :param approved: The chunks that ``force`` is for, of any of the tables; None for all.
        """
        names = several(tables)
        if len(names) == 1:
            return [self.retain(names[0], force=force, approved=approved)]
        results: list[RetentionResult] = []
        broken_by = None
        with self.session(), noted(self, "retain") as done:
            for name in names:
                if broken_by is None:
                    result, go_on = self._retain_named(name, force=force, approved=approved)
                    broken_by = None if go_on else name
                else:
                    result = not_tried(RetentionResult, name, broken_by)
                results.append(result)
            done += results
        return results

    def _retain_named(
        self, name: str, *, force: bool, approved: Collection[str] | None
    ) -> tuple[RetentionResult, bool]:
        try:
            (found,) = self.chronotables([name])
            return self._retain(found, force=force, approved=approved)
        except LakeTSError as err:
            return RetentionResult(name, **failure(err)), not isinstance(err, GENERAL)

    def _retain(
        self, table: ChronoTable, *, force: bool, approved: Collection[str] | None
    ) -> tuple[RetentionResult, bool]:
        """Return the result for a table, and whether to continue with the next one."""
        approved = None if approved is None else set(several(approved))
        before = standing(self, table)
        trimmed: list[int] = []
        # Earlier batches are committed if a later one fails, so their chunks are reported, too.
        result, go_on = attempt(
            RetentionResult,
            table.name,
            partial(self._drop_all, table, trimmed, force=force, approved=approved),
        )
        if not go_on:
            return result, False
        after = set(standing(self, table))
        dropped = [chunk for chunk in before if chunk not in after]
        deferred = why_not_dropped(self, table, approved if force else None)
        outcome = "dropped" if dropped else "deferred" if deferred else "trimmed" if trimmed else "unchanged"
        return dataclasses.replace(
            result,
            outcome=outcome if result.ok else result.outcome,
            dropped=dropped,
            deferred=deferred,
            trimmed=sum(trimmed),
            **counted.dropped(self, dropped),
        ), True

    def _drop_all(
        self, table: ChronoTable, trimmed: list[int], *, force: bool, approved: Collection[str] | None
    ) -> RetentionResult:
        """Drop, then trim, each batch in its own transaction if the engine supports it."""
        while self.supports("compare_chunks") and self.compare_chunks(
            table.table_name, schema_name=table.schema_name, only_expired=True
        ):
            pass
        self._drop(table, force=force and approved is None)
        while force and approved is not None and self._drop_approved(table, approved):
            pass
        while self.supports("trim_shadow") and (
            rows := self.trim_shadow(table.table_name, schema_name=table.schema_name)
        ):
            trimmed.append(rows)
        return RetentionResult(table.name, "unchanged")

    def _drop(self, table: ChronoTable, *, force: bool) -> None:
        while self.execute_retention(
            table.table_name, schema_name=table.schema_name, force=force, max_chunks=DROP_BATCH
        ):
            if not self.supports("execute_retention", "p_max_chunks"):
                break

    def _drop_approved(self, table: ChronoTable, approved: Collection[str]) -> int:
        """
        Drop a batch of chunks by force, up to the first one that is not approved.

        The engine drops the oldest first, so their number is enough, unless somebody else drops
        some of them meanwhile: the lock prevents that. An older engine drops all.
        """
        batched = self.supports("execute_retention", "p_max_chunks")

        def drop(conn: psycopg.Connection[Any]) -> int:
            with conn.transaction():
                one = self._within(conn)
                if self.supports("_lock_maintenance"):
                    names = {"table": table.table_name, "schema": table.schema_name}
                    one.query(LOCK_MAINTENANCE, names, doing=f"Locking {table.name}")
                past = [chunk.chunk for chunk in past_retention(one, table)]
                count = len(list(takewhile(approved.__contains__, past)))
                if not count or (count < len(past) and not batched):
                    return 0
                return one.execute_retention(
                    table.table_name,
                    schema_name=table.schema_name,
                    force=True,
                    max_chunks=min(count, DROP_BATCH),
                )

        return self.run_in_session(drop, doing=f"Dropping the approved chunks of {table.name}")

    def refresh(
        self,
        rollup: str | None = None,
        *,
        parallelism: int = 4,
        force: bool = False,
        start: datetime | None = None,
        end: datetime | None = None,
        since: datetime | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[RefreshResult]:
        """
        Refresh RollUps, each after those it reads and in a separate transaction.

        :param rollup: Only this RollUp and those it reads; None for all.
        :param parallelism: How many to refresh at a time, each in a separate session.
        :param force: Refresh even if the refresh_lag has not passed.
        :param start: The start of a range whose buckets are re-aggregated, changed or not.
        :param end: The end of the range; buckets whose source is dropped keep their value.
        :param since: A RollUp that was refreshed at this time or later counts as changed, even if
            another call refreshed it.
        :param on_progress: Called with the number done and the total number.
        """
        if parallelism < 1:
            raise ValueError(f"parallelism must be 1 or more, not {parallelism}")
        if (start is None) != (end is None):
            raise ValueError("start and end go together: give both, or neither")
        start, end, since = (as_utc(instant) for instant in (start, end, since))
        with self.session(), noted(self, "refresh") as done:
            refresh = partial(self._refresh_one, force=force)
            if start is not None and end is not None:
                refresh = partial(self._refresh_range, start=start, end=end, force=force)
            rollups = with_dependencies(self._known_rollups(rollup), rollup)
            results = run_cascade(
                rollups, refresh, parallelism=parallelism, stop=self.cancel, on_progress=on_progress
            )
            done += results
        earlier = {name for name, one in rollups.items() if _is_since(one.last_refreshed_at, since)}
        return [
            dataclasses.replace(result, changed=True) if result.ok and result.name in earlier else result
            for result in results
        ]

    def _refresh_one(self, name: str, *, force: bool) -> RefreshResult:
        started = time.monotonic()
        done = counted.refresh(self, name, force=force)
        ms = round((time.monotonic() - started) * 1000)
        if done.refreshed:
            return RefreshResult(
                name, "refreshed", ms=ms, rows=done.rows, removed=done.removed, changed=done.changed
            )
        outcome, detail = why_not_refreshed(self, name)
        return RefreshResult(name, outcome, detail, ms=ms)

    def _refresh_range(self, name: str, *, start: datetime, end: datetime, force: bool) -> RefreshResult:
        buckets = buckets_of_range(self.invalidate_rollup_range(name, start, end), start, end)
        # The refresh_lag limits scheduled work; a range was requested explicitly. LakeTS 0.1.x
        # cannot ignore it.
        result = self._refresh_one(name, force=force or self.supports("refresh_rollup", "p_force"))
        if result.outcome == "refreshed":
            return dataclasses.replace(result, detail=buckets)
        # Another session may have started before the marks were set, and not see them.
        detail = f"{result.detail}; marked for the next refresh: {buckets}"
        return dataclasses.replace(result, outcome="contended", detail=detail)


def _is_since(instant: datetime | None, since: datetime | None) -> bool:
    return instant is not None and since is not None and instant >= since
