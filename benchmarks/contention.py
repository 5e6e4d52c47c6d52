"""The effect of retention on readers and writers of a table with all features."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

import psycopg

from benchmarks import tables
from benchmarks.chunks import DROP_BATCH
from benchmarks.measure import Bar, Figure, Step, measure

if TYPE_CHECKING:
    from benchmarks.scale import Scale
    from benchmarks.server import Server

CLIENTS = 8
LOCK_TIMEOUT = 2_000.0  # ms; the longest that maintenance waits for a lock, and others for it
TODAY = "date_trunc('day', now())"
SCRIPTS = {
    "write": "INSERT INTO busy (at, device, value) VALUES (clock_timestamp(), :client_id, 20.5);\n",
    "read": "SELECT count(*), max(value) FROM busy"
    " WHERE at >= now() - interval '1 second' AND device = :client_id;\n",
}


@dataclass
class Latencies:
    """The latencies of one run in ms, and what retention did meanwhile."""

    taken: list[float]
    dropped: int = 0
    contended: int = 0

    @property
    def p99(self) -> float:
        return quantiles(self.taken, n=100)[98]


def run(server: Server, scale: Scale) -> list[Figure]:
    """Read and write at full speed, alone and while retention drops chunk after chunk, in turn."""
    runs: dict[str, list[Latencies]] = {"alone": [], "retention": []}
    with server.database("contention") as conn, tempfile.TemporaryDirectory() as folder:
        table_id = tables.chronotable(conn, "busy", TODAY, f"{TODAY} + interval '2 days'")
        # As in production, writes are mirrored, and drops wait for the feed and for a RollUp.
        tables.track(conn, "busy", 1, tier_after="10 days")
        conn.execute("SELECT lakets.add_retention_policy('busy', '20 days')")

        def alone(_: int) -> float:
            runs["alone"].append(Latencies(_load(server, Path(folder), scale.load_seconds)))
            return runs["alone"][-1].p99

        def with_retention(number: int) -> float:
            _add_expired(conn, table_id, number, scale.chunks)
            with ThreadPoolExecutor(1) as pool:
                load = pool.submit(_load, server, Path(folder), scale.load_seconds)
                dropped, contended = 0, 0
                while not load.done():
                    try:
                        batch = tables.scalar(
                            conn, f"SELECT lakets.execute_retention('busy', p_max_chunks => {DROP_BATCH})"
                        )
                    except psycopg.errors.LockNotAvailable:
                        contended += 1
                        continue
                    dropped += batch
                    if not batch:
                        break
                if not dropped:
                    raise RuntimeError(f"Retention dropped no chunk of busy, contended {contended} time(s).")
                runs["retention"].append(Latencies(load.result(), dropped, contended))
            return runs["retention"][-1].p99

        steps: dict[str, Step] = {"alone": alone, "retention": with_retention}
        p99 = measure(steps, rounds=scale.rounds)
    return _figures(p99, {name: taken[1:] for name, taken in runs.items()})


def _figures(p99: dict[str, list[float]], runs: dict[str, list[Latencies]]) -> list[Figure]:
    details = {
        "dropped": [taken.dropped for taken in runs["retention"]],
        "contended": [taken.contended for taken in runs["retention"]],
        "statements": {name: [len(one.taken) for one in taken] for name, taken in runs.items()},
        "median_ms": {name: [median(one.taken) for one in taken] for name, taken in runs.items()},
    }
    return [
        Figure(
            "Contention",
            "p99 latency during retention",
            "ms",
            engine=p99["retention"],
            floor=p99["alone"],
            floor_name=f"the load of {CLIENTS} clients alone",
            details=details,
        ),
        Figure(
            "Contention",
            "longest statement during retention",
            "ms",
            engine=[max(max(one.taken) for one in runs["retention"])],
            floor=[max(max(one.taken) for one in runs["alone"])],
            floor_name=f"the load of {CLIENTS} clients alone",
            bar=Bar(LOCK_TIMEOUT, of="figure"),
        ),
    ]


def _add_expired(conn: psycopg.Connection, table_id: int, number: int, chunks: int) -> None:
    """
    Add chunks that are past retention, absorbed and tiered.

    Older ones every round, as a range once dropped stays dropped.
    """
    first = f"{TODAY} - interval '{30 + (number + 1) * chunks} days'"
    conn.execute(
        f"SELECT lakets._ensure_partitions({table_id}, p_range_start => {first},"
        f" p_range_end => {first} + interval '{chunks} days')"
    )
    conn.execute(
        f"INSERT INTO busy SELECT {first} + n * interval '1 day' / 100, 1, 1"
        f" FROM generate_series(0, {chunks * 100 - 1}) AS n"
    )
    conn.execute("SELECT lakets.refresh_rollup('busy_hourly')")
    # Twice: the first call begins to watch the feed, and the second sees that it has passed.
    for _ in range(2):
        tables.feed_catches_up(conn)
        conn.execute("SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier('busy')")
    left = tables.scalar(conn, "SELECT count(*) FROM lakets._get_chunks_to_tier('busy')")
    if left:
        raise RuntimeError(f"{left} of {chunks} chunks of busy are not tiered.")


def _load(server: Server, folder: Path, seconds: int) -> list[float]:
    """Run the load and return the latency of each statement in ms."""
    files = []
    for name, script in SCRIPTS.items():
        (folder / name).write_text(script)
        files.append(f"--file={folder / name}@1")
    prefix = folder / "latency"
    server.pgbench(
        "contention", f"--client={CLIENTS}", f"--time={seconds}", "--log", f"--log-prefix={prefix}", *files
    )
    taken = []
    for log in folder.glob("latency*"):
        taken += [float(line.split()[2]) / 1000 for line in log.read_text().splitlines()]
        log.unlink()
    return taken
