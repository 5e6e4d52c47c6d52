"""Check that every row is where it must be and every RollUp is right, value by value."""
# ruff: noqa: S608 - the queries are put together from the demo's own constants

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_lakets.local.demo.compare import difference, fetch, within, without
from airflow_provider_lakets.local.demo.data import SOURCES
from airflow_provider_lakets.local.demo.kept import overlaps
from airflow_provider_lakets.local.demo.sql import ROLLUPS, SYNCED_ROLLUP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from airflow_provider_lakets.local.demo.data import Source
    from airflow_provider_lakets.local.demo.sql import Rollup
    from airflow_provider_lakets.local.lakebase import LocalLakebase

_DROPPED = """
SELECT chunk.range_start, chunk.range_end
  FROM lakets._chunk_metadata AS chunk
  JOIN lakets._chronotable_registry AS tab ON tab.id = chunk.chronotable_id
 WHERE tab.table_name = %s AND chunk.status = 'dropped'
"""

_SHADOW = """
SELECT tab.shadow_table_name FROM lakets._chronotable_registry AS tab WHERE tab.table_name = %(name)s
UNION ALL
SELECT up.shadow_table_name FROM lakets._rollup_registry AS up WHERE up.name = %(name)s
"""

# Chunks that exist although the registry calls them dropped, or the other way round.
_MISNAMED = """
SELECT chunk.chunk_name, chunk.status
  FROM lakets._chunk_metadata AS chunk
 WHERE (chunk.status = 'dropped') = EXISTS (
     SELECT FROM pg_catalog.pg_inherits AS inh
      WHERE inh.inhrelid = to_regclass(coalesce('public.' || chunk.relation_name, chunk.chunk_name)))
"""


@dataclass(frozen=True)
class TableAudit:
    """Where the rows of a source are, each counted once; ``delta_only`` has the rows themselves."""

    name: str
    source: int
    in_lakebase: int
    in_delta: int
    in_both: int
    delta_only: pa.Table
    missing: int
    altered: int
    extra: int
    problems: Sequence[str]


@dataclass(frozen=True)
class RollupAudit:
    """How many rows of a RollUp equal its query, and how many equal their value before a drop."""

    name: str
    equal: int
    kept: int
    wrong: int
    problems: Sequence[str]


@dataclass(frozen=True)
class Audit:
    """The audited tables and RollUps, and a sentence for each problem."""

    tables: Sequence[TableAudit]
    rollups: Sequence[RollupAudit]
    problems: Sequence[str]


def audit(lakebase: LocalLakebase, conn: psycopg.Connection[Any], truth: Mapping[str, pa.Table]) -> Audit:
    """
    Compare both tiers with the source data, and RollUps with their queries; all must be flushed.

    :param lakebase: The Lakebase with its Delta tables.
    :param conn: A session in it.
    :param truth: The rows that each table should have, from the source.
    """
    tables = [_audit_table(lakebase, conn, source, truth[source.name]) for source in SOURCES]
    rollups = [_audit_rollup(lakebase, conn, one) for one in ROLLUPS]
    problems = [f"Chunk {name} has the wrong status: {status}" for name, status in conn.execute(_MISNAMED)]
    problems += [said for table in tables for said in table.problems]
    problems += [said for rollup in rollups for said in rollup.problems]
    return Audit(tables, rollups, problems)


def _audit_table(
    lakebase: LocalLakebase, conn: psycopg.Connection[Any], source: Source, truth: pa.Table
) -> TableAudit:
    problems: list[str] = []
    replayed = _replay(lakebase, conn, source.name, source.schema, problems)
    hot = difference(truth, fetch(conn, f"public.{source.name}", source.schema), source.key)
    cold = difference(truth, replayed, source.key)
    lost = within(hot.lacking, cold.lacking, source.key)
    stands = pc.invert(_in_dropped_chunk(conn, source, hot.missing))
    for rows, what in (
        (hot.missing.filter(stands), "not in Lakebase, though no chunk of that time was dropped"),
        (hot.altered, "in Lakebase with other values"),
        (hot.extra, "in Lakebase, but not in the source"),
        (cold.missing, "not in Delta"),
        (cold.altered, "in Delta with other values"),
        (cold.extra, "in Delta, but not in the source"),
    ):
        if len(rows):
            problems.append(f"{source.name}: {_rows(rows)} {what}; such as {_example(rows, source)}")
    in_lakebase, in_delta = len(truth) - len(hot.lacking), len(truth) - len(cold.lacking)
    return TableAudit(
        source.name,
        source=len(truth),
        in_lakebase=in_lakebase,
        in_delta=in_delta,
        in_both=in_lakebase + in_delta - (len(truth) - len(lost)),
        delta_only=without(hot.lacking, cold.lacking, source.key),
        missing=len(lost),
        altered=len(hot.altered) + len(cold.altered),
        extra=len(hot.extra) + len(cold.extra),
        problems=problems,
    )


def _replay(
    lakebase: LocalLakebase,
    conn: psycopg.Connection[Any],
    name: str,
    schema: pa.Schema,
    problems: list[str],
) -> pa.Table:
    """Return the rows that a Delta history results in; add a problem if it is inconsistent."""
    shadow = _value(conn, _SHADOW, {"name": name})
    try:
        rows = lakebase.current_rows(shadow)
        return rows.select(schema.names).cast(schema) if rows.num_columns else schema.empty_table()
    except (ValueError, KeyError) as err:
        problems.append(f"{name}: its Delta history cannot be replayed. {err}")
        return schema.empty_table()


def _in_dropped_chunk(conn: psycopg.Connection[Any], source: Source, rows: pa.Table) -> pa.ChunkedArray:
    """Return for each row whether its time is in a dropped chunk."""
    times = rows[source.time]
    inside = pc.less(times, times)  # false for all
    for start, end in conn.execute(_DROPPED, [source.name]).fetchall():
        lower, upper = (pa.scalar(edge, times.type) for edge in (start, end))
        inside = pc.or_(inside, pc.and_(pc.greater_equal(times, lower), pc.less(times, upper)))
    return inside


def _audit_rollup(lakebase: LocalLakebase, conn: psycopg.Connection[Any], rollup: Rollup) -> RollupAudit:
    """Compare buckets with the query, or with their value before their source was dropped."""
    is_cut = overlaps(rollup, "b.bucket")
    fresh = f"SELECT b.* FROM ({rollup.query}) AS b WHERE NOT {is_cut}"
    stored = f"SELECT b.* FROM {rollup.table} AS b WHERE NOT {is_cut}"
    before = f"SELECT b.* FROM demo.{rollup.name} AS b"
    after = f"SELECT b.* FROM {rollup.table} AS b WHERE {is_cut}"
    problems: list[str] = []
    wrong = 0
    for expected, found, what in (
        (fresh, stored, "differ from the query over the rows in Lakebase"),
        (before, after, "changed after their source had left Lakebase"),
    ):
        buckets = conn.execute(
            f"WITH expected AS ({expected}), found AS ({found})"
            " SELECT DISTINCT d.bucket FROM ((TABLE expected EXCEPT ALL TABLE found)"
            " UNION ALL (TABLE found EXCEPT ALL TABLE expected)) AS d ORDER BY 1"
        ).fetchall()
        if buckets:
            wrong += len(buckets)
            first = f"{buckets[0][0]:%Y-%m-%d %H:%M}"
            problems.append(f"RollUp {rollup.name}: {len(buckets)} bucket(s) {what}; such as {first}")
    if rollup.name == SYNCED_ROLLUP:
        problems += _audit_mirror(lakebase, conn, rollup)
    equal, kept = (_value(conn, f"SELECT count(*) FROM ({rows}) AS r") for rows in (stored, after))
    return RollupAudit(rollup.name, equal, kept, wrong, problems)


def _audit_mirror(lakebase: LocalLakebase, conn: psycopg.Connection[Any], rollup: Rollup) -> list[str]:
    """Compare a RollUp that is streamed with its Delta table."""
    problems: list[str] = []
    figures = ("flights", "cancelled", "late", "delay_sum")
    schema = pa.schema(
        [("bucket", pa.timestamp("us", tz="UTC")), ("origin", pa.string())]
        + [(name, pa.int64()) for name in figures]
    )
    there = _replay(lakebase, conn, rollup.name, schema, problems)
    found = difference(fetch(conn, rollup.table, schema), there, ["bucket", "origin"])
    wrong = len(found.lacking) + len(found.extra)
    if wrong:
        problems.append(f"RollUp {rollup.name}: {wrong} row(s) are not the same in Delta")
    return problems


def _value(conn: psycopg.Connection[Any], query: str, parameters: dict[str, Any] | None = None) -> Any:
    row = conn.execute(query, parameters).fetchone()
    return row[0] if row else None


def _rows(rows: pa.Table) -> str:
    return "1 row is" if len(rows) == 1 else f"{len(rows):,} rows are"


def _example(rows: pa.Table, source: Source) -> str:
    row = rows.slice(0, 1).to_pylist()[0]
    return ", ".join(f"{name} {row[name]}" for name in source.key)
