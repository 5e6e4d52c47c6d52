"""Promises 7, 8 and 11 under load: everything at once, and no deadlock."""

from __future__ import annotations

import contextlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stage import HandFeed, Stage

    Act = Callable[[psycopg.Connection, random.Random], object]

TABLES = ("metrics", "events")
WRITERS = 3

# What a job may be told by those who came first; a deadlock is none of it.
ANSWERS = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.RaiseException,  # the chunk or RollUp is dropped by now, or there is one
    psycopg.errors.CheckViolation,  # a row was on its way to the default partition when its chunk came
)

CREATE_ROLLUP = (
    "SELECT lakets.create_rollup('passing', $$SELECT lakets.time_bucket('1 day', at) AS bucket, max(value)"
    " AS top FROM events GROUP BY 1$$, '1 day')"
)

# A tracked change of an upper RollUp's source, of a chunk's, of the mirror: each locks in its own
# order.
JOBS = [
    ["SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier('metrics') LIMIT 3"],
    ["SELECT lakets.execute_retention('metrics', p_max_chunks => 1)"],
    ["SELECT lakets.execute_retention('events', p_max_chunks => 1)"],
    ["SELECT * FROM lakets.refresh_rollup_cascade()"],
    ["SELECT lakets.refresh_rollup('hourly', true)", "SELECT lakets.refresh_rollup('daily', true)"],
    ["SELECT lakets.enable_sync('metrics')", "SELECT lakets.enable_sync('hourly')"],
    ["SELECT lakets.enable_sync('events')", "SELECT lakets.disable_sync('events')"],
    [CREATE_ROLLUP, "SELECT lakets.drop_rollup('passing')"],
    ["SELECT lakets.invalidate_rollup_range('hourly', '2024-01-03', '2024-01-09')"],
    [
        "SELECT lakets.disable_rollup_invalidation('daily')",
        "SELECT lakets.enable_rollup_invalidation('daily')",
    ],
    ["SELECT * FROM lakets.retention_report('metrics')", "SELECT * FROM lakets.lakets_metrics()"],
]


def ensure(conn: psycopg.Connection, chance: random.Random) -> None:
    day = chance.randrange(1, 20)
    conn.execute(
        "SELECT lakets._ensure_partitions(id, p_range_start => %s, p_range_end => %s)"
        " FROM lakets._chronotable_registry WHERE table_name = %s",
        [f"2024-01-{day:02}", f"2024-01-{day + 2:02}", chance.choice(TABLES)],
    )


def read(conn: psycopg.Connection, chance: random.Random) -> None:
    with conn.transaction():
        for table in chance.sample(["public._rollup_daily", "public._rollup_hourly", *TABLES], 3):
            conn.execute(f"SELECT count(*) FROM {table}".encode())


def do_jobs(conn: psycopg.Connection, chance: random.Random) -> None:
    for statement in chance.choice(JOBS):
        conn.execute(statement.encode())


def writer(number: int) -> Act:
    """Return the step of a writer that changes only its own rows, which LakeTS must not block."""

    def write(conn: psycopg.Connection, chance: random.Random) -> None:
        own = f"id % {WRITERS} = {number}"
        with conn.transaction():
            for _ in range(chance.randrange(1, 4)):
                table, day = chance.choice(TABLES), chance.randrange(1, 20)
                one = WRITERS * chance.randrange(1000, 10**6) + number
                statement = chance.choice(
                    [
                        f"INSERT INTO {table} VALUES ({one}, '2024-01-{day:02} 05:00', {one})",
                        f"INSERT INTO {table} VALUES ({one}, '2024-01-{day:02} 05:00', {one})",
                        f"UPDATE {table} SET value = value + 1 WHERE {own}",
                        f"UPDATE {table} SET at = '2024-01-{day:02} 06:00' WHERE {own} AND value % 2 = 0",
                        f"DELETE FROM {table} WHERE {own} AND value % 3 = 0",
                    ]
                )
                conn.execute(statement.encode())

    return write


def perform(stage: Stage, name: str, act: Act, turns: int) -> int:
    """Repeat something, and return how often it was done."""
    chance, done = random.Random(name), 0
    with psycopg.connect(stage.conninfo, autocommit=True, application_name=name) as conn:
        conn.execute("SET deadlock_timeout = '20ms'; SET client_min_messages = error")
        for _ in range(turns):
            with contextlib.suppress(*ANSWERS):
                act(conn, chance)
                done += 1
    return done


@pytest.fixture
def feed(stage: Stage) -> HandFeed:
    """Make two tables, one of them followed by a feed, and two RollUps, one above the other."""
    feed = stage.synced(days=range(1, 13))
    stage.table("events", days=range(1, 13), keyed=False)
    stage.run("SELECT lakets.add_retention_policy('events', '2 days')")
    stage.rollup("hourly")
    stage.rollup("daily", reads="hourly", every="1 day")
    stage.run("SELECT lakets.enable_sync('hourly')")
    stage.set_lock_timeout("300ms")
    return feed


def storm(stage: Stage, feed: HandFeed, turns: int) -> dict[str, int]:
    acts: dict[str, Act] = {f"writer {number}": writer(number) for number in range(WRITERS)}
    acts |= {f"jobs {number}": do_jobs for number in range(3)}
    acts |= {"partitions": ensure, "reader": read, "feed": lambda *_: feed.flush()}
    with ThreadPoolExecutor(len(acts)) as pool:
        running = {name: pool.submit(perform, stage, name, act, turns) for name, act in acts.items()}
    return {name: future.result() for name, future in running.items()}


def check(stage: Stage, feed: HandFeed) -> None:
    """Check that nothing was lost on the way, but for what is dropped."""
    stage.run("SELECT lakets.refresh_rollup(name, true) FROM unnest('{hourly,daily}'::text[]) AS name")
    dropped = (
        "SELECT range_agg(tstzrange(range_start, range_end)) FROM lakets._chunk_metadata"
        " WHERE status = 'dropped' AND starts_with(chunk_name, 'public.metrics_')"
    )
    resident = f"NOT coalesce(({dropped}) @> {{}}, false)"
    table = f"SELECT * FROM metrics WHERE {resident.format('at')}"
    shadow = f"SELECT * FROM lakets_cdf._shadow_metrics WHERE {resident.format('at')}"
    assert stage.run(f"({table}) EXCEPT ALL ({shadow})") == []
    assert stage.run(f"({shadow}) EXCEPT ALL ({table})") == []
    resident_buckets = [
        row
        for row in stage.difference("hourly")
        if stage.value(f"SELECT {resident.format('%s::timestamptz')}", row[1])
    ]
    assert resident_buckets == []
    assert stage.difference("daily") == []


def test_everything_at_once_never_waits_in_a_circle(stage: Stage, feed: HandFeed) -> None:
    done = storm(stage, feed, turns=40)

    assert min(done.values()) > 0
    check(stage, feed)


@pytest.mark.slow
def test_everything_at_once_for_long_never_waits_in_a_circle(stage: Stage, feed: HandFeed) -> None:
    done = storm(stage, feed, turns=1500)

    assert min(done.values()) > 0
    check(stage, feed)
