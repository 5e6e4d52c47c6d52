"""The dashboard for Grafana: each of its queries runs, and returns data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab import Lab

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = json.loads((DOCS / "grafana" / "lakets.json").read_text())
QUERIES = {panel["title"]: panel["targets"][0]["rawSql"] for panel in DASHBOARD["panels"]}

RIGHTS = re.findall(r"```sql\n(.*?)```", (DOCS / "monitoring.md").read_text(), re.DOTALL)[0]


@pytest.fixture
def engine() -> str:
    """Our engine: 0.1.x has no history, and its metrics fail."""
    return "ours"


@pytest.fixture
def grafana(lab: Lab) -> Iterator[psycopg.Connection]:
    """Yield a session that may read only, on a world in which each job did something."""
    lab.synced("metrics", days=8)
    lab.rollup("hourly")
    lab.flush()
    hook = lab.hook()
    hook.partition(future_count=9)
    hook.tier(lab.old_chunks())
    hook.refresh()
    hook.retain("public.metrics")
    lab.break_rollup("hourly")
    hook.refresh()
    role = f"grafana_{lab.value('SELECT oid FROM pg_database WHERE datname = current_database()')}"
    lab.conn.execute(f"CREATE ROLE {role} LOGIN; {RIGHTS.replace('TO grafana', f'TO {role}')}".encode())
    with psycopg.connect(lab.conninfo, user=role, autocommit=True) as conn:
        conn.read_only = True
        yield conn
    lab.conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def as_grafana_sends_it(query: str) -> str:
    """Replace the macros of Grafana as Grafana does."""
    return re.sub(
        r"\$__timeFilter\(([\w.]+)\)",
        r"\1 BETWEEN now() - interval '7 days' AND now() + interval '1 h'",
        query,
    )


def rows(conn: psycopg.Connection, panel: str) -> list[dict[str, Any]]:
    cursor = conn.execute(as_grafana_sends_it(QUERIES[panel]).encode())
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def test_each_panel_shows_something(grafana: psycopg.Connection) -> None:
    assert [panel for panel in QUERIES if not rows(grafana, panel)] == []


def test_the_panels_show_what_the_jobs_did(grafana: psycopg.Connection) -> None:
    chunks = {row["metric"]: row["value"] for row in rows(grafana, "Chunks")}
    ends = {row["metric"] for row in rows(grafana, "Chunks, by what became of them")}

    assert chunks["dropped"] > 0
    assert {"created", "tiered", "dropped"} <= ends
    assert rows(grafana, "Problems in this time") == [{"value": 1}]
    (given_back,) = rows(grafana, "Given back in this time")
    assert given_back["value"] > 0
    assert {row["job"] for row in rows(grafana, "What the jobs did last")} == {
        "partitions",
        "tier",
        "retain",
        "refresh",
    }


def test_an_empty_database_breaks_no_panel(conn: psycopg.Connection) -> None:
    for panel in QUERIES:
        rows(conn, panel)
