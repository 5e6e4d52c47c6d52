"""A cascade over many RollUps of which none has anything to do."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.measure import Bar, Figure, Step, measure

if TYPE_CHECKING:
    import psycopg

    from benchmarks.scale import Scale
    from benchmarks.server import Server

SESSIONS = 4  # what LakeTSRollupRefreshOperator opens unless told otherwise


def run(server: Server, scale: Scale) -> list[Figure]:
    """Refresh RollUp after RollUp, each in its own transaction, as LakeTSHook does."""
    with server.database("cascade") as conn:
        tables.chronotable(conn, "source", tables.FIRST_DAY, f"{tables.FIRST_DAY} + interval '2 days'")
        conn.execute(f"INSERT INTO source {tables.rows(0, 2 * tables.ROWS_A_DAY)}")
        query = tables.ROLLUPS["daily"].format("source")
        names = [f"r{number}" for number in range(scale.rollups)]
        for name in names:
            tables.add_rollup(conn, name, query, "1 day")
        tables.settle(conn)
        sessions = [server.connect("cascade") for _ in range(SESSIONS)]
        variants: dict[str, Step] = {
            "1 session": lambda _: _cascade(sessions[:1], names),
            f"{SESSIONS} sessions": lambda _: _cascade(sessions, names),
        }
        samples = measure(variants, rounds=scale.rounds)
        for session in sessions:
            session.close()
    return [
        Figure(
            "RollUps",
            f"cascade over {len(names)} idle RollUps, {variant}",
            "ms",
            engine=taken,
            bar=Bar(1_000.0, of="figure"),
        )
        for variant, taken in samples.items()
    ]


def _cascade(sessions: list[psycopg.Connection], names: list[str]) -> float:
    def refresh(turn: int) -> None:
        for name in names[turn :: len(sessions)]:
            sessions[turn].execute("SELECT lakets.refresh_rollup(p_name => %s)", [name])

    started = time.perf_counter()
    with ThreadPoolExecutor(len(sessions)) as pool:
        list(pool.map(refresh, range(len(sessions))))
    return (time.perf_counter() - started) * 1000
