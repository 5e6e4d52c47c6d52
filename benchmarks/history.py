"""Corrections of old rows, and the refresh that follows, on a short and on a long history."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.measure import Bar, Figure, Step, measure, timed

if TYPE_CHECKING:
    import psycopg

    from benchmarks.scale import Scale
    from benchmarks.server import Server

CORRECTED = 10_000  # rows a statement
REFRESH = "SELECT lakets.refresh_rollup('history_hourly')"


def run(server: Server, scale: Scale) -> list[Figure]:
    """Measure at each size of history, and how each cost grows from the first to the last."""
    figures: dict[int, list[Figure]] = {}
    first: list[Figure] = []
    for days in scale.histories:
        with server.database(f"history_{days}") as conn:
            load(conn, days)
            figures[days] = [
                *_corrections(conn, days, scale.rounds),
                *_refreshes(conn, days, scale.rounds),
            ]
            first = _first_refreshes(server, conn, days, scale.rounds)
            first.append(_view(conn, days, scale.rounds))
    short, *_, long = scale.histories
    return [
        *(figure for of_size in figures.values() for figure in of_size),
        *first,
        *(_growth(*pair, long // short) for pair in zip(figures[short], figures[long], strict=True)),
    ]


def load(conn: psycopg.Connection, days: int) -> None:
    """Fill a ChronoTable with its shadow and RollUps, and plain tables with the same rows."""
    last = f"{tables.FIRST_DAY} + interval '{days} days'"
    tables.chronotable(conn, "history", tables.FIRST_DAY, last)
    conn.execute(f"CREATE TABLE plain ({tables.COLUMNS})")
    for day in range(0, days, 10):
        last_row = min(day + 10, days) * tables.ROWS_A_DAY
        conn.execute(f"INSERT INTO history {tables.rows(day * tables.ROWS_A_DAY, last_row)}")
    conn.execute("INSERT INTO plain SELECT * FROM history")
    tables.track(conn, "history", 1)
    conn.execute("CREATE TABLE plain_hourly AS SELECT * FROM _rollup_history_hourly")
    conn.execute("CREATE INDEX ON plain_hourly (bucket)")
    tables.feed_catches_up(conn)
    tables.settle(conn)


def _corrections(conn: psycopg.Connection, days: int, rounds: int) -> list[Figure]:
    """Update, then delete 10,000 old rows at a time, different ones each time."""
    figures = []
    statements = {"UPDATE {} SET value = value + 1": 0, "DELETE FROM {}": (rounds + 1) * CORRECTED}
    for statement, start in statements.items():

        def step(table: str, number: int, statement: str = statement, start: int = start) -> float:
            first = start + number * CORRECTED
            tables.feed_catches_up(conn)
            return timed(
                conn,
                f"{statement.format(table)} WHERE at >= {tables.instant(first)}"
                f" AND at < {tables.instant(first + CORRECTED)}",
            )

        samples = measure({name: partial(step, name) for name in ("plain", "history")}, rounds=rounds)
        figures.append(
            Figure(
                "Corrections",
                f"{statement.split()[0]} {CORRECTED:,} old rows, shadow of {_millions(days)}",
                "ms",
                engine=samples["history"],
                floor=samples["plain"],
                floor_name="plain table that mirrors nothing",
                bar=Bar(6.0),
            )
        )
    return figures


def _corrected(conn: psycopg.Connection, days: int, number: int) -> str:
    """Correct one day, read it once (the first reader pays), return its condition."""
    day = days // 2 + number % (days // 2)
    first, last = (tables.instant(start * tables.ROWS_A_DAY) for start in (day, day + 1))
    of_day = f"at >= {first} AND at < {last}"
    conn.execute(f"UPDATE history SET value = value + 1 WHERE {of_day}")
    tables.feed_catches_up(conn)
    conn.execute(f"SELECT sum(value) FROM history WHERE {of_day}")
    return of_day


def _by_hand(of_day: str) -> tuple[str, str]:
    """Return the bare statements that do what a refresh after a correction has to do."""
    return (
        f"DELETE FROM plain_hourly WHERE {of_day.replace('at ', 'bucket ')}",
        "INSERT INTO plain_hourly SELECT date_bin('1 hour', at, '2000-01-01 00:00:00+00'), device,"
        f" avg(value), max(value), count(*) FROM history WHERE {of_day} GROUP BY 1, 2",
    )


def _refreshes(conn: psycopg.Connection, days: int, rounds: int) -> list[Figure]:
    """Refresh the hourly RollUp after the correction of one day, and again with nothing to do."""

    def floor(number: int) -> float:
        taken = timed(conn, *_by_hand(_corrected(conn, days, number)))
        conn.execute(REFRESH)  # the engine starts each of its rounds with this round's day alone
        return taken

    def engine(number: int) -> float:
        _corrected(conn, days, number)
        return timed(conn, REFRESH)

    steps: dict[str, Step] = {"floor": floor, "engine": engine}
    after = measure(steps, rounds=rounds * 3)  # short, and so noisy
    idle = measure({"engine": lambda _: timed(conn, REFRESH)}, rounds=rounds * 4)
    return [
        Figure(
            "RollUps",
            f"refresh after correcting 1 day in {days} ({_millions(days)} rows)",
            "ms",
            engine=after["engine"],
            floor=after["floor"],
            floor_name="bare DELETE + INSERT of that day",
            bar=Bar(1.3),
        ),
        Figure(
            "RollUps",
            f"idle refresh, {days} days of source",
            "ms",
            engine=idle["engine"],
            bar=Bar(5.0, of="figure"),
        ),
    ]


def _first_refreshes(server: Server, conn: psycopg.Connection, days: int, rounds: int) -> list[Figure]:
    """The same as the first statement of a session, as jobs do: nothing is cached."""

    def fresh(*statements: str) -> float:
        with server.connect(conn.info.dbname) as session:
            return timed(session, *statements)

    def floor(number: int) -> float:
        taken = fresh(*_by_hand(_corrected(conn, days, number)))
        conn.execute(REFRESH)
        return taken

    def engine(number: int) -> float:
        _corrected(conn, days, number)
        return fresh(REFRESH)

    steps: dict[str, Step] = {"floor": floor, "engine": engine}
    after = measure(steps, rounds=rounds * 3)
    idle = measure({"engine": lambda _: fresh(REFRESH)}, rounds=rounds * 4)
    return [
        Figure(
            "RollUps",
            f"first refresh of a session after correcting 1 day in {days}",
            "ms",
            engine=after["engine"],
            floor=after["floor"],
            floor_name="bare DELETE + INSERT of that day, first in a session",
            bar=Bar(1.5),
        ),
        Figure(
            "RollUps",
            "first refresh of a session, idle",
            "ms",
            engine=idle["engine"],
            bar=Bar(5.0, of="figure"),
        ),
    ]


def _view(conn: psycopg.Connection, days: int, rounds: int) -> Figure:
    """Read the hourly RollUp with one more day of live rows, by its view and by hand."""
    query = tables.ROLLUPS["hourly"].format("history")
    conn.execute("SELECT lakets.create_rollup_view('history_hourly', %s)", [query])
    live, end = (tables.instant(day * tables.ROWS_A_DAY) for day in (days, days + 1))
    conn.execute(
        f"SELECT lakets._ensure_partitions(reg.id, p_range_start => {live}, p_range_end => {end})"
        " FROM lakets._chronotable_registry AS reg WHERE reg.table_name = 'history'"
    )
    conn.execute(
        f"INSERT INTO history {tables.rows(days * tables.ROWS_A_DAY, (days + 1) * tables.ROWS_A_DAY)}"
    )
    tables.settle(conn)
    fresh = query.replace(" GROUP BY", f" WHERE at >= {live} GROUP BY")
    by_hand = f"(TABLE _rollup_history_hourly UNION ALL {fresh})"
    samples = measure(
        {
            name: partial(lambda source, _: timed(conn, f"SELECT sum(readings) FROM {source} AS v"), source)
            for name, source in (("floor", by_hand), ("engine", "_rollup_rt_history_hourly"))
        },
        rounds=rounds * 3,
    )
    return Figure(
        "RollUps",
        f"real-time view of {days} days and a live one",
        "ms",
        engine=samples["engine"],
        floor=samples["floor"],
        floor_name="the RollUp and the query of the live day",
        bar=Bar(2.0),
    )


def _growth(short: Figure, long: Figure, times: int) -> Figure:
    """Return how the cost grows with the history, in floors, as the plain tables grow too."""

    def in_floors(figure: Figure) -> list[float]:
        floors = figure.floor or [1.0] * len(figure.engine)
        return [engine / floor for engine, floor in zip(figure.engine, floors, strict=True)]

    return Figure(
        long.group,
        f"{long.name}: to a history of 1/{times}",
        "floors" if long.floor else long.unit,
        engine=in_floors(long),
        floor=in_floors(short),
        floor_name=f"the engine, {short.name}",
        bar=Bar(1.3),
    )


def _millions(days: int) -> str:
    return f"{days * tables.ROWS_A_DAY / 1_000_000:.2g} M"
