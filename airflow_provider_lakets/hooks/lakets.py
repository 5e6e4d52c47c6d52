"""LakeTSHook: the four jobs, what they work on, and what happened to each thing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import (
    LakebaseConnectionError,
    LakeTSArgumentError,
    LakeTSContendedError,
    LakeTSError,
    LakeTSNotInstalledError,
    LakeTSPrivilegeError,
)
from airflow_provider_lakets.hooks._cascade import run_cascade, with_dependencies
from airflow_provider_lakets.hooks._contract import LakeTSContract, record
from airflow_provider_lakets.hooks._deferred import why_not_dropped, why_not_tiered
from airflow_provider_lakets.hooks.results import (
    ChronoTable,
    InstallResult,
    PartitionResult,
    RefreshResult,
    RetentionResult,
    Rollup,
    Status,
    TierCandidate,
    TierResult,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    import psycopg

# One transaction, and so one hold on the table's lock, drops at most so many partitions.
DROP_BATCH = 20

TABLES = """
SELECT tab.id, tab.schema_name, tab.table_name, tab.time_column, tab.chunk_interval, tab.sync_enabled,
       tab.shadow_table_name,
       ARRAY(SELECT pol.policy_type FROM lakets._policy_registry AS pol
              WHERE pol.chronotable_id = tab.id AND pol.enabled ORDER BY pol.policy_type) AS policies
  FROM lakets._chronotable_registry AS tab
 ORDER BY tab.schema_name, tab.table_name
"""

ROLLUPS = """
SELECT rol.name, rol.bucket_interval, rol.refresh_lag, rol.watermark, rol.last_refreshed_at,
       ARRAY(SELECT dep.name FROM lakets._rollup_registry AS dep
              WHERE dep.id = ANY (rol.depends_on) ORDER BY dep.name) AS depends_on
  FROM lakets._rollup_registry AS rol
 ORDER BY rol.name
"""

# Errors that are the same for the next table, chunk or RollUp: no use in going on.
FATAL = (LakeTSNotInstalledError, LakebaseConnectionError)
PERMANENT = (LakeTSArgumentError, LakeTSPrivilegeError, LakeTSNotInstalledError)


class LakeTSHook(LakeTSContract):
    """
    The LakeTS lifecycle on a Lakebase connection.

    The methods named like LakeTS functions call just these, and raise. The jobs (:meth:`partition`,
    :meth:`tier`, :meth:`retain`, :meth:`refresh`) go through all they are given, and report a failure of
    one table, chunk or RollUp in its result; only what would fail for every one is raised.

    :param lakebase_conn_id: The connection of type ``lakebase``.
    :param tries: How often a call is made at most when its connection or a lock is lost.
    """

    # What there is

    def chronotables(
        self, names: Iterable[str] | None = None, *, policy: str | None = None
    ) -> list[ChronoTable]:
        """
        List the ChronoTables.

        :param names: Only these, as ``schema.table``, or ``table`` for one in schema public.
        :param policy: Only those with such a policy: ``tiering`` or ``retention``; tiered retention is both.
        """
        rows = self._query(TABLES, doing="Listing the ChronoTables")
        tables = [record(ChronoTable, row) for row in rows]
        if names is not None:
            tables = [self._find(tables, name) for name in names]
        return [
            table for table in tables if policy is None or {policy, "tiered_retention"} & {*table.policies}
        ]

    def _find(self, tables: list[ChronoTable], name: str) -> ChronoTable:
        for table in tables:
            if name == table.name or f"public.{name}" == table.name:
                return table
        raise LakeTSArgumentError(
            f"{name!r} is no ChronoTable over connection {self.get_conn_id()!r}; there are: "
            f"{_listed(table.name for table in tables)}. Name it schema.table, or make it one with "
            "lakets.create_chronotable."
        )

    def rollups(self) -> list[Rollup]:
        """List the RollUps with the names of those that each one reads."""
        return [record(Rollup, row) for row in self._query(ROLLUPS, doing="Listing the RollUps")]

    def tier_candidates(self, tables: Iterable[str] | None = None) -> list[TierCandidate]:
        """
        List the chunks that are due for tiering, table by table, oldest first.

        :param tables: Only of these ChronoTables; None for all that have a tiering policy.
        """
        with self.session():
            return [
                candidate
                for table in self.chronotables(tables, policy="tiering")
                for candidate in self.get_chunks_to_tier(table.table_name, schema_name=table.schema_name)
            ]

    # The jobs

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
        Create the chunks that are missing.

        :param tables: The ChronoTables; None for all.
        :param past_count: How many chunks before the current one.
        :param future_count: How many after it.
        :param range_start: Instead: from the chunk of this instant ...
        :param range_end: ... to this instant.
        """
        arguments: dict[str, Any] = {
            "past_count": past_count,
            "future_count": future_count,
            "range_start": range_start,
            "range_end": range_end,
        }
        with self.session():
            return [self._partition_one(table, arguments) for table in self.chronotables(tables)]

    def _partition_one(self, table: ChronoTable, arguments: dict[str, Any]) -> PartitionResult:
        try:
            count = self.ensure_partitions(table.id, **arguments)
            created = self._newest_chunks(table, count)
        except LakeTSError as err:
            return PartitionResult(table.name, **_failure(err))
        return PartitionResult(table.name, "created" if count else "unchanged", created=created)

    def _newest_chunks(self, table: ChronoTable, count: int) -> list[str]:
        if not count:
            return []
        rows = self._query(
            "SELECT chunk_name FROM lakets._chunk_metadata WHERE chronotable_id = %(id)s"
            " ORDER BY id DESC LIMIT %(count)s",
            {"id": table.id, "count": count},
            doing=f"Listing the new chunks of {table.name}",
        )
        return sorted(row["chunk_name"] for row in rows)

    def tier(self, chunks: Iterable[str]) -> list[TierResult]:
        """
        Flag chunks that are proved durable in Unity Catalog; the others are deferred, with the reason.

        :param chunks: Their names.
        """
        with self.session():
            return [self._tier_one(chunk) for chunk in chunks]

    def _tier_one(self, chunk: str) -> TierResult:
        try:
            if self.tier_chunk(chunk):
                return TierResult(chunk, "tiered")
            return TierResult(chunk, "deferred", why_not_tiered(self, chunk))
        except LakeTSError as err:
            return TierResult(chunk, **_failure(err))

    def retain(self, table: str, *, force: bool = False) -> RetentionResult:
        """
        Drop the chunks of a ChronoTable that are past retention, a few at a time; say why others stay.

        :param table: The ChronoTable.
        :param force: Drop even what is not proved durable in Unity Catalog.
        """
        with self.session():
            (found,) = self.chronotables([table])
            where = {"schema_name": found.schema_name}
            before = [chunk.chunk_name for chunk in self.show_chunks(found.table_name, **where)]
            outcome: dict[str, Any] = {}
            batched = self._takes("execute_retention", "p_max_chunks")
            try:
                while self.execute_retention(found.table_name, force=force, max_chunks=DROP_BATCH, **where):
                    if not batched:
                        break
            except LakeTSError as err:
                # Earlier batches are committed: say what they dropped.
                outcome = _failure(err)
            after = {chunk.chunk_name for chunk in self.show_chunks(found.table_name, **where)}
            dropped = [chunk for chunk in before if chunk not in after]
            deferred = why_not_dropped(self, found)
        if not outcome:
            outcome = {"outcome": "dropped" if dropped else "deferred" if deferred else "unchanged"}
        return RetentionResult(found.name, dropped=dropped, deferred=deferred, **outcome)

    def refresh(
        self, rollup: str | None = None, *, parallelism: int = 4, force: bool = False
    ) -> list[RefreshResult]:
        """
        Refresh RollUps, each after those it reads and in a transaction of its own.

        :param rollup: Only this one and all that it reads; None for every one.
        :param parallelism: How many to refresh at a time, each in a session of its own.
        :param force: Refresh although the refresh_lag has not passed.
        """
        if parallelism < 1:
            raise ValueError(f"parallelism must be 1 or more, not {parallelism}")
        with self.session():
            known = self.rollups()
            if rollup is not None and rollup not in {one.name for one in known}:
                raise LakeTSArgumentError(
                    f"RollUp {rollup!r} does not exist over connection {self.get_conn_id()!r}; there are: "
                    f"{_listed(one.name for one in known)}."
                )
            return run_cascade(
                with_dependencies(known, rollup),
                lambda name: self._refresh_one(name, force=force),
                parallelism=parallelism,
                stop=self.cancel,
            )

    def _refresh_one(self, name: str, *, force: bool) -> RefreshResult:
        started = time.monotonic()
        try:
            refreshed = self.refresh_rollup(name, force=force)
            detail = None if refreshed else self._why_not_refreshed(name)
        except LakeTSError as err:
            return RefreshResult(name, ms=_ms_since(started), **_failure(err))
        return RefreshResult(
            name, "refreshed" if refreshed else "unchanged", detail=detail, ms=_ms_since(started)
        )

    def _why_not_refreshed(self, name: str) -> str:
        rows = self._query(
            "SELECT refresh_lag, last_refreshed_at + refresh_lag > now() AS too_soon"
            "  FROM lakets._rollup_registry WHERE name = %(name)s",
            {"name": name},
            doing=f"Looking up RollUp {name}",
        )
        if rows and rows[0]["too_soon"]:
            return f"refreshed less than {rows[0]['refresh_lag']} ago (refresh_lag)"
        return "another session is refreshing it"

    # Install and status

    def version(self) -> str | None:
        """Return the version of LakeTS in the database, or None if there is none."""
        try:
            rows = self._query(
                "SELECT version FROM lakets._version ORDER BY installed_at DESC LIMIT 1",
                doing="Reading the version of LakeTS",
            )
        except LakeTSNotInstalledError:
            return None
        return str(rows[0]["version"]) if rows else None

    def install(self) -> InstallResult:
        """Install LakeTS or bring it up to date, all or nothing; a second installer waits for the first."""
        from airflow_provider_lakets.engine import install_script

        script = install_script()

        def run(conn: psycopg.Connection[Any]) -> None:
            try:
                # Without parameters psycopg sends a script as it is: it brings its own BEGIN and COMMIT.
                conn.execute(script)  # type: ignore[call-overload]
            finally:
                conn.rollback()

        with self.session():
            before = self.version()
            self._do(run, doing="Installing LakeTS")
            self._arguments = None
            after = self.version()
        if after is None:
            raise LakeTSError("The install ran, but recorded no version in lakets._version.")
        self.log.info("LakeTS is at version %s now; it was at %s before", after, before)
        return InstallResult(before, after)

    def status(self) -> Status:
        """Gather what `lakets status` shows."""
        with self.session():
            tables = self.chronotables()
            feeds = [
                feed
                for table in tables
                for feed in self.show_tiering_status(table.table_name, schema_name=table.schema_name)
            ]
            return Status(self.version(), tables, self.chunk_health(), feeds, self.rollups())


def _failure(error: LakeTSError) -> dict[str, Any]:
    """Return the fields of a result for what went wrong with one thing; raise what is wrong with all."""
    if isinstance(error, FATAL):
        raise error
    contended = isinstance(error, LakeTSContendedError)
    return {
        "outcome": "contended" if contended else "failed",
        "detail": str(error),
        "retryable": not isinstance(error, PERMANENT),
    }


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
