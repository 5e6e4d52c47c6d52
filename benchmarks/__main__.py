"""Measure the engine beside plain Postgres: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks import (
    batches,
    cascade,
    chunks,
    clients,
    contention,
    enqueue,
    feed,
    fleet,
    frontdoor,
    functions,
    history,
    ingest,
    last_values,
    overhead,
    quote,
    report,
)
from benchmarks.scale import SCALES
from benchmarks.server import running_server

if TYPE_CHECKING:
    from benchmarks.measure import Figure

# Chunks first: right after files are deleted, creating files may be slower on some file systems.
GROUPS = {
    "chunks": chunks,
    "ingest": ingest,
    "batches": batches,
    "clients": clients,
    "last_values": last_values,
    "history": history,
    "cascade": cascade,
    "functions": functions,
    "contention": contention,
    "frontdoor": frontdoor,
    "overhead": overhead,
    "enqueue": enqueue,
    "feed": feed,
    "fleet": fleet,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the engine beside plain Postgres."
    )
    parser.add_argument(
        "--scale", choices=SCALES, default="small", help="small: minutes; full: up to 10 M rows"
    )
    parser.add_argument(
        "--only",
        choices=GROUPS,
        nargs="+",
        help="measure these; other figures in results.json stay",
    )
    arguments = parser.parse_args()
    scale = SCALES[arguments.scale]
    console = Console()
    console.width = max(console.width, 130)  # the table's; a log has no width of its own
    figures: list[Figure] = []
    with running_server() as server:
        for name in arguments.only or GROUPS:
            started = time.monotonic()
            with console.status(f"Measuring {name} ..."):
                figures += GROUPS[name].run(server, scale)
            console.print(f"Measured {name} in {time.monotonic() - started:.0f} s")
        version = server.version
    report.show(console, figures)
    report.write(figures, scale, version, whole=not arguments.only)
    quote.main()
    console.print(f"Every sample is in {report.RESULTS}")


if __name__ == "__main__":
    main()
