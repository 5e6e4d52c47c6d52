"""Copies of RollUp buckets from before part of their source was dropped: these must not change."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.local.demo.sql import ROLLUPS, Rollup

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

# One row for each chunk that has left Lakebase.
_DROPPED = """
SELECT tab.table_name, chunk.range_start, chunk.range_end
  FROM lakets._chunk_metadata AS chunk
  JOIN lakets._chronotable_registry AS tab ON tab.id = chunk.chronotable_id
 WHERE chunk.status = 'dropped'
"""


def overlaps(rollup: Rollup, bucket: str, dropped: str = f"({_DROPPED})") -> str:
    """
    Return the condition that part of a bucket's source is gone; false if the source is a RollUp.

    :param rollup: The RollUp.
    :param bucket: SQL of the bucket's start.
    :param dropped: The relation with the dropped chunks.
    """
    if rollup.source is None:
        return "false"
    return (
        f"EXISTS (SELECT FROM {dropped} AS gone WHERE gone.table_name = '{rollup.source}'"
        f" AND gone.range_start < {bucket} + interval '{rollup.interval}' AND gone.range_end > {bucket})"
    )


def prepare(conn: psycopg.Connection[Any]) -> None:
    """Create the tables for the copies, once the RollUps exist."""
    conn.execute("CREATE SCHEMA demo")
    for rollup in ROLLUPS:
        conn.execute(f"CREATE TABLE demo.{rollup.name} (LIKE {rollup.table})")


@contextlib.contextmanager
def keep(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Copy the RollUps before retention runs, and keep the buckets whose source it dropped."""
    conn.execute(f"CREATE TEMP TABLE dropped_before AS {_DROPPED}")
    for rollup in ROLLUPS:
        conn.execute(f"CREATE TEMP TABLE before_{rollup.name} AS TABLE {rollup.table}")
    yield
    for rollup in ROLLUPS:
        conn.execute(
            f"INSERT INTO demo.{rollup.name} SELECT old.* FROM before_{rollup.name} AS old"  # noqa: S608
            f" WHERE {overlaps(rollup, 'old.bucket')}"
            f" AND NOT {overlaps(rollup, 'old.bucket', 'dropped_before')}"
        )
        conn.execute(f"DROP TABLE before_{rollup.name}")
    conn.execute("DROP TABLE dropped_before")
