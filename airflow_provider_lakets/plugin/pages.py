"""The values for the template of each page."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import HTTPException

from airflow_provider_lakets.hooks.functions.rows import natural
from airflow_provider_lakets.monitoring import data
from airflow_provider_lakets.monitoring.attention import needs_attention
from airflow_provider_lakets.monitoring.finding import grouped
from airflow_provider_lakets.plugin import chunk_map, rollup_graph
from airflow_provider_lakets.plugin.runs import last_runs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_lakets.monitoring.data import Snapshot, Table
    from airflow_provider_lakets.monitoring.finding import Attention
    from airflow_provider_lakets.plugin.page_request import PageRequest
    from airflow_provider_lakets.plugin.runs import DagRun
    from airflow_provider_lakets.plugin.snapshots import Known, Snapshots

log = logging.getLogger(__name__)

ROWS = 50  # tables a page
CHUNKS = 100  # single chunks a page


def href(request: PageRequest, page: str, /, **query: Any) -> str:
    """Return the URL of a page of the plugin for the connection that is shown."""
    given = {"conn": request.conn, **query}
    return f"{request.base}/{page}?{urlencode({key: one for key, one in given.items() if one is not None})}"


def _common(request: PageRequest, known: Known, title: str) -> dict[str, Any]:
    return {
        "request": request,
        "base": request.base,
        "known": known,
        "snapshot": known.snapshot,
        "title": title,
        "runs": _runs(request),
        "states": [(state, data.MEANINGS[state]) for state in data.STATES],
        # Positional only, because the query may also contain `page`, a number.
        "href": lambda page, /, **query: href(request, page, **query),
    }


def _runs(request: PageRequest) -> list[DagRun]:
    return last_runs(request.allowed.get(request.conn or "", []))


def overview(request: PageRequest, known: Known, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the values for the first page."""
    values = _common(request, known, f"LakeTS · {request.conn}")
    snapshot = known.snapshot
    if snapshot is None or snapshot.version is None:
        return values
    attention = needs_attention(snapshot)
    worst = {one.subject: number for number, one in reversed([*enumerate(attention)])}
    found = [one for one in snapshot.tables if given.get("q", "").casefold() in one.name.casefold()]
    found.sort(key=lambda one: (worst.get(one.name, len(attention)), natural(one.name)))
    page = min(_number(given.get("page"), 1), max(1, -(-len(found) // ROWS)))
    tables = found[(page - 1) * ROWS : page * ROWS]
    hrefs = {f"table:{one.name}": href(request, "table", name=one.name) for one in snapshot.tables}
    hrefs |= {f"rollup:{one.name}": href(request, "rollup", name=one.name) for one in snapshot.rollups}
    # Reversed, so that the worst problem of each RollUp is kept.
    severities = {one.subject: one.severity for one in reversed(attention) if one.kind == "rollup"}
    return {
        **values,
        "attention": attention,
        "groups": grouped(attention),
        "tables": tables,
        "found": len(found),
        "q": given.get("q", ""),
        "page": page,
        "pages": max(1, -(-len(found) // ROWS)),
        "space": _space(snapshot),
        "rollups": rollup_graph.in_order(snapshot.rollups),
        "hrefs": hrefs,
        "graph": rollup_graph.graph_svg(snapshot.rollups, hrefs, snapshot.at, severities),
        **_map(tables, snapshot, given),
    }


def _map(tables: list[Table], snapshot: Snapshot, given: Mapping[str, str]) -> dict[str, Any]:
    axis = chunk_map.choose_axis(tables, snapshot.at, given.get("span"))
    return {
        "axis": axis,
        "axis_svg": chunk_map.axis_svg(axis),
        "spans": list(chunk_map.SPANS),
        "row": lambda one, **options: chunk_map.row_svg(one, axis, **options),
        "outside": lambda one: chunk_map.runs_outside(one, axis),
        "in_words": chunk_map.in_words,
    }


def _space(snapshot: Snapshot) -> dict[str, int | None]:
    def total(values: list[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return {
        "lakebase": total([one.lakebase_bytes for one in snapshot.tables]),
        "given_back": total([one.bytes_of("dropped") for one in snapshot.tables]),
        "proved": total([one.bytes_of("tiered", "changed") for one in snapshot.tables]),
    }


def table(request: PageRequest, snapshots: Snapshots, name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the values for the page of a table."""
    known, values = _known(request, snapshots, name)
    if known.snapshot is None:
        return values
    found = known.snapshot.table(name)
    if found is None:
        raise HTTPException(404, "This connection has no such ChronoTable.")
    page = _number(given.get("page"), 1)
    count = found.count(*data.STATES)
    page = min(page, max(1, -(-count // CHUNKS)))
    offset = (page - 1) * CHUNKS
    conn = request.conn or ""
    chunks = snapshots.ask(conn, lambda hook: data.chunks(hook, name, limit=CHUNKS, offset=offset))
    history = snapshots.ask(request.conn or "", lambda hook: data.history(hook, name))
    return {
        **values,
        "table": found,
        "chunks": chunks,
        "history": history or [],
        "state_of": found.state_at,
        "page": page,
        "pages": max(1, -(-count // CHUNKS)),
        "groups": _about("table", name, known.snapshot),
        "readers": [one for one in known.snapshot.rollups if one.source == name],
        **_map([found], known.snapshot, given),
    }


def rollup(request: PageRequest, snapshots: Snapshots, name: str) -> dict[str, Any]:
    """Return the values for the page of a RollUp."""
    known, values = _known(request, snapshots, name)
    if known.snapshot is None:
        return values
    found = known.snapshot.rollup(name)
    if found is None:
        raise HTTPException(404, "This connection has no such RollUp.")
    history = snapshots.ask(request.conn or "", lambda hook: data.history(hook, name))
    return {
        **values,
        "rollup": found,
        "history": history or [],
        "readers": [one for one in known.snapshot.rollups if name in one.depends_on],
        "groups": _about("rollup", name, known.snapshot),
    }


def _known(request: PageRequest, snapshots: Snapshots, name: str) -> tuple[Known, dict[str, Any]]:
    if request.conn is None:
        raise HTTPException(404, "No DAG that you may read uses a Lakebase connection.")
    known = snapshots.look(request.conn, wake=request.wake)
    return known, {**_common(request, known, f"LakeTS · {name}"), "name": name}


def _about(kind: str, name: str, snapshot: Snapshot) -> list[list[Attention]]:
    """Return the problems of one table or RollUp, each as a separate group."""
    return [[one] for one in needs_attention(snapshot) if (one.kind, one.subject) == (kind, name)]


def _number(text: str | None, least: int) -> int:
    return max(least, int(text)) if text and text.isascii() and text.isdigit() and len(text) < 7 else least
