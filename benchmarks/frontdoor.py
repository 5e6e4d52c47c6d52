"""The cost of the local Lakebase's TLS gateway, compared with the server's own socket."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from psycopg.conninfo import make_conninfo

from airflow_provider_lakets.local.client import LocalServer
from benchmarks.measure import Bar, Figure, measure

if TYPE_CHECKING:
    from benchmarks.scale import Scale
    from benchmarks.server import Server

ROUND_TRIPS = 2_000
ROWS = 500_000
BLOCK = 65_536


def run(server: Server, scale: Scale) -> list[Figure]:
    """Log in to a new Lakebase both ways, and send the same through both."""
    with (
        tempfile.TemporaryDirectory(prefix="lake-", ignore_cleanup_errors=True) as folder,
        LocalServer(Path(folder)) as lakebase,
    ):
        direct = make_conninfo(
            host=str(lakebase.folder / "pg"), port=5432, dbname="databricks_postgres", user="postgres"
        )
        ways = {"engine": _log_in(lakebase), "floor": psycopg.connect(direct, autocommit=True)}
        trips = measure(
            {way: lambda _, c=conn: _round_trip(c) for way, conn in ways.items()},  # type: ignore[misc]
            rounds=scale.rounds,
        )
        copies = measure(
            {way: lambda _, c=conn: _copy(c) for way, conn in ways.items()},  # type: ignore[misc]
            rounds=scale.rounds,
        )
        for conn in ways.values():
            conn.close()
    added = [door - socket for door, socket in zip(trips["engine"], trips["floor"], strict=True)]
    return [
        Figure("Front door", "added to a round trip", "ms", added, bar=Bar(0.5, of="figure")),
        Figure(
            "Front door",
            f"COPY {ROWS:,} rows into a temporary table",
            "ms",
            copies["engine"],
            copies["floor"],
            "Unix socket",
            Bar(1.3),
        ),
    ]


def _log_in(lakebase: LocalServer) -> psycopg.Connection[Any]:
    state = lakebase.state
    token = httpx.post(
        f"{state.url}/oidc/v1/token",
        auth=(state.owner.client_id, state.owner.client_secret),
        data={"grant_type": "client_credentials", "scope": "all-apis"},
    ).json()["access_token"]
    credential = httpx.post(
        f"{state.url}/api/2.0/postgres/credentials",
        json={"endpoint": state.endpoint},
        headers={"Authorization": f"Bearer {token}"},
    ).json()["token"]
    return psycopg.connect(
        host="127.0.0.1",
        port=state.port,
        dbname="databricks_postgres",
        user=state.owner.client_id,
        password=credential,
        sslmode="require",
        autocommit=True,
    )


def _round_trip(conn: psycopg.Connection[Any]) -> float:
    started = time.perf_counter()
    for _ in range(ROUND_TRIPS):
        conn.execute("SELECT 1")
    return (time.perf_counter() - started) / ROUND_TRIPS * 1000


def _copy(conn: psycopg.Connection[Any]) -> float:
    data = b"".join(b"%d\t2026-01-01 00:00:00+00\t%s\n" % (number, b"x" * 60) for number in range(ROWS))
    conn.execute("CREATE TEMP TABLE copied (id bigint, ts timestamptz, filler text)")
    started = time.perf_counter()
    with conn.cursor().copy("COPY copied FROM STDIN") as copy:
        for start in range(0, len(data), BLOCK):
            copy.write(data[start : start + BLOCK])
    took = (time.perf_counter() - started) * 1000
    conn.execute("DROP TABLE copied")
    return took
