"""How large the measured tables are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """
    The sizes of one run.

    :param ingest_batches: COPY batches of 10,000 rows a round.
    :param client_seconds: How long concurrent clients insert per round.
    :param histories: Days of history, at 33,300 rows a day, on which corrections are measured.
    :param chunks: How many chunks are created and dropped.
    :param standing_chunks: How many chunks a table has on which nothing is due.
    :param rollups: How many idle RollUps a cascade goes over.
    :param load_seconds: How long readers and writers run beside retention per round.
    :param fleets: How many tables, and how many chunks each has.
    """

    name: str
    ingest_batches: int
    client_seconds: int
    histories: tuple[int, ...]
    chunks: int
    standing_chunks: int
    rollups: int
    load_seconds: int
    fleets: tuple[tuple[int, int], ...]
    rounds: int = 5


SCALES = {
    "small": Scale(
        "small",
        ingest_batches=10,
        client_seconds=1,
        histories=(10, 30),
        chunks=200,
        standing_chunks=1_000,
        rollups=500,
        load_seconds=1,
        fleets=((100, 50),),
    ),
    "full": Scale(
        "full",
        ingest_batches=100,
        client_seconds=10,
        histories=(30, 300),
        chunks=1_000,
        standing_chunks=5_000,
        rollups=500,
        load_seconds=10,
        fleets=((100, 50), (400, 100)),
    ),
}
