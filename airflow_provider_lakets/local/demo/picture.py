"""A picture of where the rows are, month by month."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from rich.text import Text

from airflow_provider_lakets.local.demo.data import SOURCES
from airflow_provider_lakets.local.demo.report import plain_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg
    from rich.console import Console

    from airflow_provider_lakets.local.demo.audit import Audit

_HOT, _TIERED, _DELTA = "red", "yellow", "blue"
# The length of the longest bar of each table.
_BARS = {"flights": 28, "weather": 12}


def print_picture(console: Console, conn: psycopg.Connection[Any], audit: Audit) -> None:
    """Print for each month where its rows are, and the values of its RollUps."""
    unicode = console.encoding.lower().startswith("utf")
    hot, tiered, delta = _marks(unicode=unicode)
    places = {one.name: _places(conn, one.name, one.delta_only) for one in audit.tables}
    facts = _facts(conn)
    table = plain_table("Where the rows are, month by month")
    table.add_column("month", style="bold")
    for name, width in _BARS.items():
        table.add_column(name, width=width)
    table.add_column("departed late", justify="right")
    table.add_column("mean temp.", justify="right")
    most = {name: max(sum(counts.values()) for counts in months.values()) for name, months in places.items()}
    for month in sorted({month for months in places.values() for month in months}):
        bars = [
            draw_bar(places[name].get(month, {}), most[name], width, unicode=unicode)
            for name, width in _BARS.items()
        ]
        table.add_row(month, *bars, *facts.get(month, ("-", "-")))
    console.print(table)
    legend = (
        (hot, _HOT, "in Lakebase, hot"),
        (tiered, _TIERED, "in both, tiered"),
        (delta, _DELTA, "in Delta only"),
    )
    console.print(
        Text("   ").join(Text.assemble((mark * 2, style), f" {said}") for mark, style, said in legend)
    )
    console.print(
        Text(
            "Late (15 min) and mean are from the monthly RollUps, which outlive the rows.\n"
            f"A {hot} after {delta}: flights filed after their chunk was dropped stay in Lakebase.\n",
            style="dim",
        )
    )


def _places(conn: psycopg.Connection[Any], name: str, delta_only: Any) -> dict[str, Counter[str]]:
    """Count the rows of each month by where they are."""
    (source,) = (source for source in SOURCES if source.name == name)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    rows = conn.execute(
        f"""
        SELECT to_char(t.{source.time} AT TIME ZONE 'UTC', 'YYYY-MM'),
               CASE chunk.status WHEN 'tiered' THEN 'tiered' ELSE 'hot' END, count(*)
          FROM public.{name} AS t
          LEFT JOIN (SELECT c.* FROM lakets._chunk_metadata AS c
                       JOIN lakets._chronotable_registry AS tab ON tab.id = c.chronotable_id
                      WHERE tab.table_name = '{name}' AND c.status <> 'dropped') AS chunk
            ON t.{source.time} >= chunk.range_start AND t.{source.time} < chunk.range_end
         GROUP BY 1, 2
        """  # noqa: S608 - constants only
    ).fetchall()
    for month, place, count in rows:
        found[month][place] += count
    for entry in pc.value_counts(pc.strftime(delta_only[source.time], format="%Y-%m")).to_pylist():
        found[entry["values"]]["delta"] += entry["counts"]
    return found


def _facts(conn: psycopg.Connection[Any]) -> dict[str, tuple[str, str]]:
    """Return the monthly RollUps: the share of late departures, and the mean temperature."""
    rows = conn.execute(
        """
        SELECT to_char(f.bucket AT TIME ZONE 'UTC', 'YYYY-MM'),
               round(100 * sum(f.late) / nullif(sum(f.flights - f.cancelled), 0)), min(w.mean)
          FROM public._rollup_flights_monthly AS f
          LEFT JOIN (SELECT bucket, round(temp_sum / nullif(temps, 0), 1) AS mean
                       FROM public._rollup_weather_monthly) AS w USING (bucket)
         GROUP BY 1
        """
    ).fetchall()
    return {
        month: ("-" if late is None else f"{late} %", "-" if mean is None else f"{mean} F")
        for month, late, mean in rows
    }


def draw_bar(counts: Mapping[str, int], most: int, width: int, *, unicode: bool) -> Text:
    """
    Draw the rows of a month, from the coldest to the hottest.

    :param counts: How many are ``hot``, ``tiered`` and in ``delta`` only.
    :param most: The number of rows that fills the width.
    :param width: The width in characters.
    :param unicode: Whether the terminal can show blocks.
    """
    hot, tiered, delta = _marks(unicode=unicode)
    bar = Text()
    total = 0
    for place, mark, style in (("delta", delta, _DELTA), ("tiered", tiered, _TIERED), ("hot", hot, _HOT)):
        count = counts.get(place, 0)
        total += count
        # Even a few rows get a mark, if necessary in place of the last one.
        length = max(round(width * total / most) - len(bar), 1) if count else 0
        bar.truncate(width - length)
        bar.append(mark * length, style)
    return bar


def _marks(*, unicode: bool) -> tuple[str, str, str]:
    return ("█", "▓", "░") if unicode else ("#", "=", ".")
