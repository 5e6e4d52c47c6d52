"""The figures as a table on the screen and as a file."""

from __future__ import annotations

import json
import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks.server import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from benchmarks.measure import Bar, Figure
    from benchmarks.scale import Scale

RESULTS = Path(__file__).parent / "results.json"


def show(console: Console, figures: Sequence[Figure]) -> None:
    """Print the table, and which bars are missed."""
    table = Table(title="Engine beside plain Postgres (medians)")
    for name in ("", "Operation", "Floor is"):
        table.add_column(name)
    for name in ("Floor", "Engine", "Ratio", "Bar", ""):
        table.add_column(name, justify="right")
    group = ""
    for figure in figures:
        floor = number(median(figure.floor), figure.unit) if figure.floor else ""
        table.add_row(
            figure.group if figure.group != group else "",
            figure.name,
            figure.floor_name,
            floor,
            number(median(figure.engine), figure.unit),
            f"{figure.ratio:.2f}" if figure.ratio is not None else "",
            _bar(figure.bar, figure.unit),
            {True: "[green]pass[/]", False: "[red]MISS[/]", None: ""}[figure.passed],
        )
        group = figure.group
    console.print(table)
    missed = [figure.name for figure in figures if figure.passed is False]
    console.print(f"Bars missed: {'; '.join(missed)}" if missed else "Every bar is met.")


def write(figures: Sequence[Figure], scale: Scale, postgres: str, *, whole: bool) -> None:
    """
    Write all samples, with the machine and the settings of the measurement.

    :param figures: The measured figures.
    :param scale: The size of the tables.
    :param postgres: The server and its version.
    :param whole: Whether to replace all figures of this scale; else only the same operations.
    """
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    measured = [_as_dict(figure) for figure in figures]
    earlier = [] if whole else results.get(scale.name, {}).get("figures", [])
    fresh = {(figure["group"], figure["operation"]): figure for figure in measured}
    kept = [fresh.pop((figure["group"], figure["operation"]), figure) for figure in earlier]
    results[scale.name] = {
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": _machine(),
        "load_average": round(os.getloadavg()[2], 1),  # over 15 minutes: the benchmark alone makes 1 to 2
        "postgres": postgres,
        "settings": SETTINGS,
        "figures": [*kept, *fresh.values()],
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def _as_dict(figure: Figure) -> dict[str, Any]:
    return {
        "group": figure.group,
        "operation": figure.name,
        "unit": figure.unit,
        "engine": round(median(figure.engine), 3),
        "floor": round(median(figure.floor), 3) if figure.floor else None,
        "floor_is": figure.floor_name or None,
        "ratio": round(figure.ratio, 3) if figure.ratio is not None else None,
        "bar": _bar(figure.bar, figure.unit) or None,
        "passed": figure.passed,
        "engine_samples": [round(sample, 3) for sample in figure.engine],
        "floor_samples": [round(sample, 3) for sample in figure.floor or []],
        **({"details": figure.details} if figure.details else {}),
    }


def number(value: float, unit: str) -> str:
    """Return a figure as text, with three significant digits."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def _bar(bar: Bar | None, unit: str) -> str:
    if bar is None:
        return ""
    sign = ">=" if bar.at_least else "<="
    return f"{sign} {bar.limit:g}x" if bar.of == "ratio" else f"{sign} {bar.limit:,g} {unit}"


def _machine() -> dict[str, str | int | None]:
    model = platform.processor() or "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else []:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.system()}
