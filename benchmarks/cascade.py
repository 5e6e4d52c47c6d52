"""Cascades over many RollUps with nothing to do, and over a few with much to do."""

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
CORES = 2  # of the machine that the bars are for


def run(server: Server, scale: Scale) -> list[Figure]:
    """Refresh RollUp after RollUp, each in its own transaction, as LakeTSHook does."""
    with server.database("cascade") as conn:
        sessions = [server.connect("cascade") for _ in range(SESSIONS)]
        figures = [*_idle(conn, sessions, scale), _busy(conn, sessions, scale)]
        for session in sessions:
            session.close()
    return figures


def _idle(conn: psycopg.Connection, sessions: list[psycopg.Connection], scale: Scale) -> list[Figure]:
    names = _rollups(conn, "source", days=2, count=scale.rollups)
    variants: dict[str, Step] = {
        "1 session": lambda _: _cascade(sessions[:1], names),
        f"{SESSIONS} sessions": lambda _: _cascade(sessions, names),
    }
    samples = measure(variants, rounds=scale.rounds)
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


def _busy(conn: psycopg.Connection, sessions: list[psycopg.Connection], scale: Scale) -> Figure:
    """Aggregate a whole table again in RollUps that do not depend on each other."""
    names = _rollups(conn, "busy", days=10, count=2 * CORES)

    def step(count: int) -> float:
        for name in names:
            conn.execute(
                "SELECT lakets.invalidate_rollup_range(%s, '2025-01-01 00:00+00', '2025-01-11 00:00+00')",
                [name],
            )
        return _cascade(sessions[:count], names)

    samples = measure(
        {"one": lambda _: step(1), "each core": lambda _: step(CORES)},
        rounds=scale.rounds,
    )
    return Figure(
        "RollUps",
        f"{len(names)} independent RollUps over 0.33 M rows, {CORES} sessions",
        "ms",
        engine=samples["each core"],
        floor=samples["one"],
        floor_name="the same in one session",
        bar=Bar(0.7),
    )


def _rollups(conn: psycopg.Connection, source: str, *, days: int, count: int) -> list[str]:
    tables.chronotable(conn, source, tables.FIRST_DAY, f"{tables.FIRST_DAY} + interval '{days} days'")
    conn.execute(f"INSERT INTO {source} {tables.rows(0, days * tables.ROWS_A_DAY)}")
    names = [f"{source}_{number}" for number in range(count)]
    for name in names:
        tables.add_rollup(conn, name, tables.ROLLUPS["daily"].format(source), "1 day")
    tables.settle(conn)
    return names


def _cascade(sessions: list[psycopg.Connection], names: list[str]) -> float:
    def refresh(turn: int) -> None:
        for name in names[turn :: len(sessions)]:
            sessions[turn].execute("SELECT lakets.refresh_rollup(p_name => %s)", [name])

    started = time.perf_counter()
    with ThreadPoolExecutor(len(sessions)) as pool:
        list(pool.map(refresh, range(len(sessions))))
    return (time.perf_counter() - started) * 1000
