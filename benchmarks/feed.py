"""How fast the local change feed writes changes to Delta, and how its time is spent."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from airflow_provider_lakets.local.feed import buffer, pgoutput, reader
from airflow_provider_lakets.local.feed.delta import History
from airflow_provider_lakets.local.feed.feed import Feed
from airflow_provider_lakets.local.feed.replication import ReplicationStream
from benchmarks.measure import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from benchmarks.scale import Scale
    from benchmarks.server import Server

CHANGES = 100_000
TRANSACTION = 1_000

TABLE = """
DROP SCHEMA wal2delta CASCADE;
CREATE SCHEMA IF NOT EXISTS lakets_cdf;
CREATE TABLE lakets_cdf.readings (
    id bigint, at timestamptz, station text, value float8, price numeric(10, 2), details jsonb
);
ALTER TABLE lakets_cdf.readings REPLICA IDENTITY FULL;
CREATE INDEX ON lakets_cdf.readings (id);
"""
# Six of ten changes insert a row, two update one, two delete one.
INSERT = """
INSERT INTO lakets_cdf.readings
SELECT g, '2026-01-01'::timestamptz + g * interval '1 s', 'station ' || mod(g, 50), random() * 100,
       mod(g, 1000) / 7.0, jsonb_build_object('quality', mod(g, 5), 'source', 'sensor')
  FROM generate_series(%(first)s::bigint, %(first)s::bigint + %(count)s - 1) AS g
"""
RANGE = "WHERE id >= %(first)s AND id < %(first)s::bigint + %(count)s"
UPDATE = f"UPDATE lakets_cdf.readings SET value = value + 1 {RANGE}"
DELETE = f"DELETE FROM lakets_cdf.readings {RANGE}"

# The time of the server alone: it decodes, and the messages are discarded.
FLOOR_SLOT = "SELECT pg_create_logical_replication_slot('bench_floor', 'pgoutput')"
FLOOR = """
SELECT count(*) FROM pg_logical_slot_get_binary_changes(
    'bench_floor', NULL, NULL, 'proto_version', '1', 'publication_names', 'wal2delta')
"""


def run(server: Server, scale: Scale) -> list[Figure]:
    """Write changes while the feed waits, then time the round that writes them to Delta."""
    engine, floor = [], []
    with server.database("bench_feed") as conn, tempfile.TemporaryDirectory() as folder:
        conn.execute(TABLE)
        with Feed(server.conninfo("bench_feed"), Path(folder)) as feed:
            feed.run_once()  # the first rows: none
            conn.execute(FLOOR_SLOT)
            for number in range(scale.rounds + 1):
                _write_changes(conn, number)
                alone, round_ = _seconds(lambda: conn.execute(FLOOR)), _seconds(feed.run_once)
                if number:
                    floor.append(CHANGES / alone)
                    engine.append(CHANGES / round_)
            _write_changes(conn, scale.rounds + 1)
            parts = _parts(feed)
        conn.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    return [
        Figure(
            "Feed",
            f"{CHANGES:,} changes to Delta",
            "/s",
            engine,
            floor,
            "Postgres decodes them",
            details={"ms of a round by part": parts},
        )
    ]


def _write_changes(conn: psycopg.Connection, number: int) -> None:
    first = number * CHANGES
    for statement, share in ((INSERT, 0.6), (UPDATE, 0.2), (DELETE, 0.2)):
        for start in range(0, int(CHANGES * share), TRANSACTION):
            conn.execute(statement, {"first": first + start, "count": TRANSACTION})


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _parts(feed: Feed) -> dict[str, float]:
    """Time the parts of one more round; reading the clock takes time, too."""
    spent: defaultdict[str, float] = defaultdict(float)

    def clocked(part: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                spent[part] += time.perf_counter() - started

        return timed

    def read(stream: ReplicationStream, target: int) -> Iterator[bytes]:
        messages = iter(original_read(stream, target))
        following = clocked("receiving", lambda: next(messages, None))
        while (message := following()) is not None:
            yield message

    original_read = ReplicationStream.read
    with (
        patch.object(ReplicationStream, "read", read),
        patch.object(reader, "decode", clocked("decoding", pgoutput.decode)),
        patch.object(buffer, "record_batch", clocked("to Arrow", buffer.record_batch)),
        patch.object(History, "append", clocked("to Delta", History.append)),
    ):
        whole = _seconds(feed.run_once)
    spent["sorting and the rest"] = whole - sum(spent.values())
    return {part: round(seconds * 1000) for part, seconds in spent.items()}
