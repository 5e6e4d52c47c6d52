"""The functions of LakeTS as typed Python methods with the same names."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_lakets import older
from airflow_provider_lakets.exceptions import LakeTSArgumentError, LakeTSNotInstalledError
from airflow_provider_lakets.hooks.functions.policies import LakeTSPolicies
from airflow_provider_lakets.hooks.functions.repairs import LakeTSRepairs
from airflow_provider_lakets.hooks.functions.reports import LakeTSReports
from airflow_provider_lakets.hooks.functions.rollups import LakeTSRollups
from airflow_provider_lakets.hooks.functions.rows import given, record
from airflow_provider_lakets.hooks.functions.series import LakeTSSeries
from airflow_provider_lakets.hooks.results import (
    Chunk,
    ChunkHealth,
    FeedStatus,
    Metric,
    TierCandidate,
)

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_lakets.hooks._calls import Row

# The most partitions that one transaction drops, while it holds the lock of the table.
DROP_BATCH = 20


def _before(end: datetime | None) -> datetime | None:
    """Return the last time before an end, because LakeTS 0.1.x includes the end in a range."""
    return end and end - timedelta(microseconds=1)


class LakeTSContract(LakeTSPolicies, LakeTSRollups, LakeTSSeries, LakeTSReports, LakeTSRepairs):
    """
    Base of LakeTSHook: the public SQL functions. Those about chunks are here.

    The schema of a table is a separate argument. Pass intervals as Postgres text if necessary,
    because a timedelta cannot represent "1 month".
    """

    # ChronoTables and their chunks

    def create_chronotable(
        self,
        table_name: str,
        time_column: str,
        *,
        chunk_interval: str | timedelta = "7 days",
        schema_name: str = "public",
        if_not_exists: bool = False,
    ) -> int:
        """Turn a table into a ChronoTable, keep its rows, and return its id."""
        return int(
            self.call_value(
                "create_chronotable",
                repeatable=if_not_exists,
                p_table_name=table_name,
                p_time_column=time_column,
                p_chunk_interval=chunk_interval,
                p_schema_name=schema_name,
                p_if_not_exists=if_not_exists,
            )
        )

    def set_chunk_interval(
        self, table_name: str, chunk_interval: str | timedelta, *, schema_name: str = "public"
    ) -> None:
        """Set the interval of future chunks."""
        self.call(
            "set_chunk_interval",
            p_table_name=table_name,
            p_chunk_interval=chunk_interval,
            p_schema_name=schema_name,
        )

    def drop_chronotable(self, table_name: str, *, schema_name: str = "public") -> None:
        """
        Drop a ChronoTable with its RollUps, shadow and policies.

        If the table has more chunks than one transaction can lock, the oldest are dropped first, in
        batches. An interrupted call can be repeated.
        """
        arguments: Row = {"p_table_name": table_name, "p_schema_name": schema_name}
        batched = self.supports("drop_chronotable_chunks")
        while batched and not self.call_value("_drop_fits", **arguments):
            if not self.drop_chronotable_chunks(table_name, schema_name=schema_name):
                break
        self.call("drop_chronotable", repeatable=False, **arguments)

    def drop_chronotable_chunks(
        self, table_name: str, *, schema_name: str = "public", max_chunks: int = DROP_BATCH
    ) -> int:
        """
        Drop the oldest chunks of a table that is about to be dropped, and return how many.

        :param table_name: The ChronoTable.
        :param schema_name: Its schema.
        :param max_chunks: Drop at most so many in this transaction.
        """
        return int(
            self.call_value(
                "drop_chronotable_chunks",
                p_table_name=table_name,
                p_schema_name=schema_name,
                p_max_chunks=max_chunks,
            )
        )

    def ensure_partitions(
        self,
        chronotable_id: int,
        *,
        past_count: int = 1,
        future_count: int = 3,
        range_start: datetime | None = None,
        range_end: datetime | None = None,
        max_chunks: int | None = None,
    ) -> int:
        """
        Create the missing chunks around now, or in a range, and return how many were created.

        :param chronotable_id: The id of the ChronoTable.
        :param past_count: How many chunks to keep before the current one.
        :param future_count: How many chunks to keep after the current one.
        :param range_start: The start of a range to create chunks for instead.
        :param range_end: The end of the range.
        :param max_chunks: Create at most this many in this transaction, if the installed LakeTS
            supports it.
        """
        if not self.supports("_ensure_partitions", "p_max_chunks"):
            max_chunks = None
            range_end = _before(range_end)
        return int(
            self.call_value(
                "_ensure_partitions",
                p_chronotable_id=chronotable_id,
                p_past_count=past_count,
                p_future_count=future_count,
                **given(p_range_start=range_start, p_range_end=range_end, p_max_chunks=max_chunks),
            )
        )

    def show_chunks(
        self,
        table_name: str,
        *,
        older_than: str | timedelta | None = None,
        newer_than: str | timedelta | None = None,
        schema_name: str = "public",
    ) -> list[Chunk]:
        """List the chunks in Lakebase."""
        rows = self.call(
            "show_chunks",
            p_table_name=table_name,
            p_schema_name=schema_name,
            **given(p_older_than=older_than, p_newer_than=newer_than),
        )
        return [record(Chunk, row) for row in rows]

    def drop_chunks(
        self, table_name: str, older_than: str | timedelta, *, schema_name: str = "public"
    ) -> int:
        """
        Drop active chunks older than an interval, whether or not they are durable elsewhere.

        They are dropped in batches, each in a separate transaction, if the installed LakeTS
        supports it. An interrupted call can be repeated.
        """
        batched = self.supports("drop_chunks", "p_max_chunks")
        dropped = 0
        while gone := int(
            self.call_value(
                "drop_chunks",
                p_table_name=table_name,
                p_older_than=older_than,
                p_schema_name=schema_name,
                **given(p_max_chunks=DROP_BATCH if batched else None),
            )
        ):
            dropped += gone
            if not batched:
                break
        return dropped

    # Tiering and retention

    def enable_sync(self, table_name: str, *, schema_name: str = "public") -> None:
        """Mirror a ChronoTable or RollUp into a shadow that the change feed streams."""
        self.call("enable_sync", repeatable=False, p_table_name=table_name, p_schema_name=schema_name)

    def disable_sync(self, table_name: str, *, schema_name: str = "public") -> None:
        """Stop mirroring a ChronoTable or RollUp."""
        self.call("disable_sync", p_table_name=table_name, p_schema_name=schema_name)

    def get_chunks_to_tier(self, table_name: str, *, schema_name: str = "public") -> list[TierCandidate]:
        """List the chunks of a table that are old enough to be tiered, if its shadow streams."""
        rows = self.call("_get_chunks_to_tier", p_table_name=table_name, p_schema_name=schema_name)
        return [record(TierCandidate, row) for row in rows]

    def tier_chunk(self, chunk_name: str) -> bool:
        """Flag a chunk as tiered if it is proved durable in Unity Catalog; return False if not."""
        return bool(self.call_value("tier_chunk", p_chunk_name=chunk_name))

    def untier_chunk(self, chunk_name: str) -> None:
        """Make a tiered chunk active again."""
        self.call("untier_chunk", p_chunk_name=chunk_name)

    def execute_retention(
        self,
        table_name: str,
        *,
        schema_name: str = "public",
        force: bool = False,
        max_chunks: int | None = None,
    ) -> int:
        """
        Drop chunks past retention from Lakebase and return how many; Unity Catalog keeps its rows.

        :param table_name: The ChronoTable.
        :param schema_name: Its schema.
        :param force: Also drop chunks that are not proved durable.
        :param max_chunks: Drop at most this many in this transaction, if the installed LakeTS
            supports it.
        """
        if not self.supports("execute_retention", "p_max_chunks"):
            max_chunks = None
        return int(
            self.call_value(
                "execute_retention",
                # Again by force, it would drop the next chunks.
                repeatable=not force or max_chunks is None,
                p_table_name=table_name,
                p_schema_name=schema_name,
                p_force=force,
                **given(p_max_chunks=max_chunks),
            )
        )

    def trim_shadow(self, table_name: str, *, schema_name: str = "public") -> int:
        """
        Remove at most 10,000 rows of dropped chunks from the shadow, and return how many.

        This happens only if the retention policy sets it, and only for rows that are proved flushed
        to Unity Catalog.
        """
        return int(self.call_value("trim_shadow", p_table_name=table_name, p_schema_name=schema_name))

    def history_view_sql(
        self,
        table_name: str,
        *,
        schema_name: str = "public",
        catalog: str | None = None,
        uc_schema: str | None = None,
        view_name: str | None = None,
        since: datetime | None = None,
    ) -> str:
        """
        Return the Databricks SQL statement that creates the view of a table's whole history.

        :param table_name: The ChronoTable.
        :param schema_name: Its schema.
        :param catalog: The catalog in Unity Catalog that the feed writes to; None for the current
            one.
        :param uc_schema: The schema there; None for the current one.
        :param view_name: The name of the view; None for the name of the table plus ``_history``.
        :param since: The time at which the feed restarted the shadow, if it did. Rows written
            before would otherwise count twice.
        """
        return str(
            self.call_value(
                "history_view_sql",
                p_table_name=table_name,
                p_schema_name=schema_name,
                **given(p_catalog=catalog, p_uc_schema=uc_schema, p_view_name=view_name, p_since=since),
            )
        )

    def show_tiering_status(
        self, table_name: str, *, schema_name: str = "public", wait_again: bool = True
    ) -> list[FeedStatus]:
        """
        Show the progress of tiering and the change feed of a table, with any policy.

        :param table_name: The table.
        :param schema_name: Its schema.
        :param wait_again: Whether to retry if another session has locked the table.
        """
        if self.is_older():
            names = {"schema_name": schema_name, "table_name": table_name}
            doing = f"Looking up the feed of {schema_name}.{table_name}"
            rows = self.query(older.FEED, names, doing=doing)
            return [record(FeedStatus, row) for row in rows]
        rows = self.call(
            "show_tiering_status",
            repeatable=wait_again,
            p_table_name=table_name,
            p_schema_name=schema_name,
        )
        return [
            record(FeedStatus, {**row, "table": f"{row['schema_name']}.{row['table_name']}"}) for row in rows
        ]

    # Monitoring

    def lakets_metrics(self) -> list[Metric]:
        """
        Return the metrics for monitoring.

        :raises LakeTSNotInstalledError: with LakeTS 0.1.x, where the function always fails.
        """
        try:
            return [record(Metric, row) for row in self.call("lakets_metrics")]
        except LakeTSArgumentError as err:
            if not self.is_older():
                raise
            raise LakeTSNotInstalledError(
                f"lakets.lakets_metrics() of the installed LakeTS 0.1.x always fails ({err}). "
                "Upgrade with `lakets install`, or use chunk_health() and status()."
            ) from err

    def chunk_health(self) -> list[ChunkHealth]:
        """Count the chunks of each ChronoTable by state."""
        # By position, because the names of the columns differ between versions of LakeTS.
        return [ChunkHealth(*list(row.values())[:7]) for row in self.call("chunk_health")]
