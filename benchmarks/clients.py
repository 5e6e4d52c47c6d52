"""Single-row inserts from concurrent clients."""

from __future__ import annotations

import re
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.measure import Bar, Figure, Step, measure

if TYPE_CHECKING:
    from benchmarks.scale import Scale
    from benchmarks.server import Server

TODAY = "date_trunc('day', now())"
INSERT = "INSERT INTO {} (at, device, value) VALUES (clock_timestamp(), :client_id, 20.5);\n"
# Two runs at saturation can differ by this much; only a larger decrease counts.
NOISE = 0.05


def run(server: Server, scale: Scale) -> list[Figure]:
    """Insert from 8 and from 16 clients, into the plain table and the ChronoTable in turn."""
    with server.database("clients") as conn, tempfile.TemporaryDirectory() as folder:
        tables.plain_partitions(conn, "plain", TODAY, 2)
        tables.mirror_inserts(conn, "plain")
        tables.chronotable(conn, "rolled", TODAY, f"{TODAY} + interval '2 days'")
        tables.track(conn, "rolled", 2)
        variants: dict[str, Step] = {}
        for clients in (8, 16):
            for name in ("plain", "rolled"):
                script = Path(folder) / name
                script.write_text(INSERT.format(name))
                variants[f"{name} {clients}"] = partial(insert, server, script, clients, scale.client_seconds)
        samples = measure(variants, rounds=scale.rounds)
    figures = [
        Figure(
            "Ingest",
            f"single-row INSERT, {clients} clients, two RollUps",
            "/s",
            engine=samples[f"rolled {clients}"],
            floor=samples[f"plain {clients}"],
            floor_name="partitioned, trigger to indexed table",
            bar=Bar({8: 0.7, 16: 0.8}[clients], at_least=True),
        )
        for clients in (8, 16)
    ]
    figures.append(
        Figure(
            "Ingest",
            "single-row INSERT, 16 clients to 8",
            "/s",
            engine=samples["rolled 16"],
            floor=samples["rolled 8"],
            floor_name="the engine with 8 clients",
            bar=Bar(1 - NOISE, at_least=True),
        )
    )
    return figures


def insert(
    server: Server, script: Path, clients: int, seconds: int, _: int, *, database: str = "clients"
) -> float:
    """Insert as fast as clients can, one row a transaction; return how many a second."""
    printed = server.pgbench(database, f"--client={clients}", f"--time={seconds}", f"--file={script}")
    found = re.search(r"^tps = ([\d.]+)", printed, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"pgbench printed no rate: {printed}")
    return float(found[1])
