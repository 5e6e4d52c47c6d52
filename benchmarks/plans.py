"""Write the plans of the main statements to docs/performance.md: ``python -m benchmarks.plans``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from benchmarks import history, tables
from benchmarks.document import fill
from benchmarks.server import running_server

if TYPE_CHECKING:
    import psycopg

DAYS = 30
EXPLAIN = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)"


def main() -> None:
    """Explain statements of the engine, as it has written them, on a million rows."""
    with running_server() as server, server.database("plans") as conn:
        history.load(conn, DAYS)
        plans = {
            "A DELETE of 10,000 old rows reaches the shadow": _mirror(conn, "delete"),
            "An UPDATE of 10,000 old rows reaches the shadow": _mirror(conn, "update"),
            f"A RollUp takes in one corrected day of {DAYS}": _refresh(conn),
        }
    text = "\n".join(f"{title}:\n\n```text\n{plan}\n```\n" for title, plan in plans.items())
    print(text)
    fill("performance.md", "plans", text)


def _mirror(conn: psycopg.Connection, event: str) -> str:
    """Explain a trigger's statement, with tables of 10,000 rows as transition tables."""
    first, last = (tables.instant(row) for row in (100_000, 100_000 + history.CORRECTED))
    rows = f"SELECT * FROM public.history WHERE at >= {first} AND at < {last}"
    with conn.transaction(force_rollback=True):
        conn.execute(f"CREATE TEMP TABLE old_rows AS {rows}")
        conn.execute(f"CREATE TEMP TABLE new_rows AS {rows}")
        conn.execute("UPDATE new_rows SET value = value + 1")
        (source, settings) = _row(
            conn,
            "SELECT prosrc, proconfig FROM pg_proc JOIN pg_trigger ON tgfoid = pg_proc.oid"
            f" WHERE tgname = 'lakets_track_{event}' AND tgrelid = 'public.history'::regclass",
        )
        for setting in settings:
            if setting.startswith("enable_"):
                conn.execute(f"SET LOCAL {setting.replace('=', ' = ')}")
        statement = re.search(r"IF v_fits THEN\s*(WITH .*?;)\n", source, re.DOTALL)
        assert statement is not None, f"the {event} trigger mirrors with no single statement"
        return _explain(conn, statement[1])


def _refresh(conn: psycopg.Connection) -> str:
    """Explain the INSERT of the function that fills the RollUp, for times and labels of one day."""
    day = DAYS // 2
    (source,) = _row(conn, "SELECT prosrc FROM pg_proc WHERE proname = '_fill_history_hourly'")
    statement = re.search(r"INSERT INTO .*?;", source, re.DOTALL)
    assert statement is not None, "the function that fills the RollUp has no INSERT"
    query = statement[0]
    for parameter, start in (("$1", day), ("$2", day + 1), ("$3", day), ("$4", day + 1)):
        query = query.replace(parameter, f"timestamptz {tables.instant(start * tables.ROWS_A_DAY)}")
    with conn.transaction(force_rollback=True):
        return _explain(conn, query)


def _explain(conn: psycopg.Connection, statement: str) -> str:
    return "\n".join(line for (line,) in conn.execute(f"{EXPLAIN} {statement}".encode()))


def _row(conn: psycopg.Connection, query: str) -> tuple[Any, ...]:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row


if __name__ == "__main__":
    main()
