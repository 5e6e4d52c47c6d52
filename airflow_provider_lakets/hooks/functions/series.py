"""The functions of LakeTS about series: last values, metric tables, ingest, alerts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import LakeTSArgumentError
from airflow_provider_lakets.hooks._calls import LakeTSCalls, Row
from airflow_provider_lakets.hooks.functions.rows import record
from airflow_provider_lakets.hooks.results import (
    Alert,
    Cardinality,
    CardinalityCheck,
    LastValueCache,
    QueryStats,
    SilentSeries,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

# The columns of a cache with their types, formatted by Postgres.
_CACHE_COLUMNS = """
SELECT string_agg(format('%%I %%s', att.attname, format_type(att.atttypid, att.atttypmod)), ', '
                  ORDER BY att.attnum) AS columns
  FROM lakets._lvc_registry AS reg
  JOIN lakets._chronotable_registry AS tab ON tab.id = reg.chronotable_id
  JOIN pg_catalog.pg_attribute AS att
    ON att.attrelid = to_regclass(format('%%I.%%I', tab.schema_name, reg.cache_table_name))
   AND att.attnum > 0 AND NOT att.attisdropped
   AND att.attname = ANY (reg.key_columns || reg.value_columns || '{last_updated}'::text[])
 WHERE tab.table_name = %(table)s AND tab.schema_name = %(schema)s
"""


class LakeTSSeries(LakeTSCalls):
    """Base of LakeTSHook: functions for single series, with the names of the SQL functions."""

    # The last value cache

    def enable_lvc(
        self,
        table_name: str,
        key_columns: Sequence[str],
        value_columns: Sequence[str],
        *,
        schema_name: str = "public",
    ) -> None:
        """Keep the newest values of each key of a ChronoTable in a separate table."""
        self.call(
            "enable_lvc",
            repeatable=False,
            p_table_name=table_name,
            p_key_columns=list(key_columns),
            p_value_columns=list(value_columns),
            p_schema_name=schema_name,
        )

    def disable_lvc(self, table_name: str, *, schema_name: str = "public") -> None:
        """Drop the last value cache of a ChronoTable."""
        self.call("disable_lvc", repeatable=False, p_table_name=table_name, p_schema_name=schema_name)

    def latest_values(self, table_name: str, *, schema_name: str = "public") -> list[Row]:
        """Return the rows of a last value cache, newest first."""
        doing = f"lakets.latest_values({table_name!r}, {schema_name!r})"
        names = {"table": table_name, "schema": schema_name}
        (found,) = self.query(_CACHE_COLUMNS, names, doing=doing)
        if not found["columns"]:
            raise LakeTSArgumentError(
                f"{doing}: the last value cache of {schema_name}.{table_name} is not enabled, or its table "
                "does not exist. Enable it with lakets.enable_lvc."
            )
        columns = found["columns"].replace("%", "%%")
        return self.query(
            f"SELECT * FROM lakets.latest_values(%(table)s, %(schema)s) AS t ({columns})",  # noqa: S608 - quoted by Postgres
            names,
            doing=doing,
        )

    def lvc_stats(self) -> list[LastValueCache]:
        """List the last value caches."""
        return [record(LastValueCache, row) for row in self.call("lvc_stats")]

    # Metric tables and ingest

    def create_metric_table(
        self,
        table_name: str,
        tag_columns: Sequence[str],
        field_columns: Sequence[str],
        *,
        chunk_interval: str | timedelta = "1 day",
        schema_name: str = "public",
    ) -> int:
        """Create a ChronoTable with tags and fields, and return its id."""
        return int(
            self.call_value(
                "create_metric_table",
                repeatable=False,
                p_table_name=table_name,
                p_tag_columns=list(tag_columns),
                p_field_columns=list(field_columns),
                p_chunk_interval=chunk_interval,
                p_schema_name=schema_name,
            )
        )

    def cardinality_stats(self, table_name: str, *, schema_name: str = "public") -> list[Cardinality]:
        """Count the distinct values of each text column; reads the whole table."""
        rows = self.call("cardinality_stats", p_table_name=table_name, p_schema_name=schema_name)
        return [record(Cardinality, {**row, "pct_of_rows": float(row["pct_of_rows"])}) for row in rows]

    def cardinality_check(
        self, table_name: str, *, max_series: int = 100_000, schema_name: str = "public"
    ) -> CardinalityCheck:
        """Compare the number of series with a limit; reads the whole table."""
        (row,) = self.call(
            "cardinality_check", p_table_name=table_name, p_max_series=max_series, p_schema_name=schema_name
        )
        return record(CardinalityCheck, row)

    def ingest_batch(
        self, table_name: str, rows: Sequence[Mapping[str, Any]], *, schema_name: str = "public"
    ) -> int:
        """
        Insert rows, given as mappings from columns to values, and return how many.

        :param table_name: The table.
        :param rows: JSON values, with times as ISO 8601 text. A missing key gets the default of the
            column.
        :param schema_name: Its schema.
        """
        return int(
            self.call_value(
                "ingest_batch",
                repeatable=False,
                p_table_name=table_name,
                p_data=json.dumps(list(rows)),
                p_schema_name=schema_name,
            )
        )

    def ingest_prometheus(
        self,
        table_name: str,
        metric_name: str,
        labels: Mapping[str, Any],
        value: float,
        *,
        timestamp: datetime | None = None,
        schema_name: str = "public",
    ) -> None:
        """Insert one Prometheus sample; the default timestamp is now."""
        given = {} if timestamp is None else {"p_timestamp": timestamp}
        self.call(
            "ingest_prometheus",
            repeatable=False,
            p_table_name=table_name,
            p_metric_name=metric_name,
            p_labels=json.dumps(dict(labels)),
            p_value=value,
            p_schema_name=schema_name,
            **given,
        )

    # Monitoring

    def alert_check(self, name: str, query: str, *, severity: str = "warning") -> list[Alert]:
        """Return an alert for each row of a query."""
        rows = self.call("alert_check", p_name=name, p_query=query, p_severity=severity)
        return [record(Alert, row) for row in rows]

    def alert_deadman(
        self,
        name: str,
        table_name: str,
        group_by: str,
        timeout: str | timedelta,
        *,
        schema_name: str = "public",
    ) -> list[SilentSeries]:
        """Return an alert for each value of a column whose newest row is older than an interval."""
        rows = self.call(
            "alert_deadman",
            p_name=name,
            p_table_name=table_name,
            p_group_by=group_by,
            p_timeout=timeout,
            p_schema_name=schema_name,
        )
        return [record(SilentSeries, row) for row in rows]

    def query_stats(self, *, limit: int = 20) -> list[QueryStats]:
        """List the statements that name LakeTS, by total time; none without pg_stat_statements."""
        return [record(QueryStats, row) for row in self.call("query_stats", p_limit=limit)]
