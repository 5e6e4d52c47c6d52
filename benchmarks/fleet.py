"""Many tables on which nothing is due: all jobs once, the reports, and the install."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import psutil
from psycopg.conninfo import conninfo_to_dict

from benchmarks import tables
from benchmarks.measure import Figure

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from benchmarks.scale import Scale
    from benchmarks.server import Server


def run(server: Server, scale: Scale) -> list[Figure]:
    """Measure a fleet of each size."""
    figures: list[Figure] = []
    for count, chunks in scale.fleets:
        name = f"fleet_{count}_{chunks}"
        with server.database(name) as conn:
            load(conn, count, chunks)
            figures += _measure(server, name, count, chunks)
    return figures


def load(conn: psycopg.Connection, count: int, chunks: int) -> None:
    """Create synced tables of daily chunks around today, with policies that have no chunk due."""
    for number in range(count):
        name = f"fleet_{number:03}"
        first, last = f"now() - interval '{chunks - 5} days'", "now() + interval '4 days'"
        tables.chronotable(conn, name, first, last)
        conn.execute(f"INSERT INTO {name} SELECT now(), n, n FROM generate_series(1, 10) AS n")
        tables.track(conn, name, 0)
        conn.execute(f"SELECT lakets.add_retention_policy('{name}', '500 days')")
    tables.feed_catches_up(conn)
    tables.settle(conn)


def _measure(server: Server, database: str, count: int, chunks: int) -> list[Figure]:
    where = conninfo_to_dict(server.conninfo(database))
    connection = json.dumps(
        {
            "conn_type": "lakebase",
            "host": where["host"],
            "schema": database,
            "login": where["user"],
            "password": "not-asked-for",
            "extra": {"sslmode": "disable"},
        }
    )
    names = [f"public.fleet_{number:03}" for number in range(count)]
    works: dict[str, Callable[[LakeTSHook], Any]] = {
        "partition manager": lambda hook: hook.partition(),
        "tiering: candidates": lambda hook: hook.tier_candidates(),
        "retention": lambda hook: hook.retain_all(names),
        "RollUp cascade": lambda hook: hook.refresh(),
        "lakets status": lambda hook: hook.status(),
        "lakets doctor": _doctor,
        "lakets_metrics()": lambda hook: hook.lakets_metrics(),
        "install again": lambda hook: hook.install(),
    }
    with mock.patch.dict(os.environ, {"AIRFLOW_CONN_LAKEBASE_DEFAULT": connection}):
        return [
            _figure(f"{name}, {count} tables of {chunks} chunks", count, *_worked(work))
            for name, work in works.items()
        ]


def _doctor(hook: LakeTSHook) -> Any:
    from airflow_provider_lakets.commands.doctor import examine

    return list(examine(hook, wait=0))


def _worked(work: Callable[[LakeTSHook], Any]) -> tuple[float, float]:
    """Do work in one session; return the ms that it took and the size of the backend in MiB."""
    from airflow_provider_lakets.hooks.lakets import LakeTSHook

    hook = LakeTSHook(statement_timeout=None)
    with hook.session():
        pid = hook.query("SELECT pg_backend_pid() AS pid", doing="Looking up the session")[0]["pid"]
        started = time.perf_counter()
        work(hook)
        taken = (time.perf_counter() - started) * 1000
        return taken, psutil.Process(pid).memory_full_info().uss / 2**20


def _figure(name: str, count: int, taken: float, memory: float) -> Figure:
    details = {"ms_a_table": round(taken / count, 2), "backend_mib": round(memory)}
    return Figure("Fleet", name, "ms", engine=[taken], details=details)
