"""
Run the system tests on each Airflow, with a report at the end: ``python -m tests.e2e --help``.

Each Airflow is in a virtual environment of its own, which ``make e2e`` sets up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / ".lakets" / "e2e"
ENVIRONMENTS = {"3.3": ".venv", "3.1": ".venv-lowest"}
SETS = {"full": (), "quick": ("-m", "not slow"), "short": ("-m", "short")}
_SECONDS = 3600  # for one Airflow; each wait in a scenario has a limit of its own
_ENOUGH = {"passed", "skipped"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, and return 0 if every scenario held."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e", description=__doc__)
    parser.add_argument("airflow", nargs="*", default=list(ENVIRONMENTS), help="3.3, 3.1; by default both")
    parser.add_argument("--set", choices=SETS, default="full", help="which scenarios; by default all")
    options, more = parser.parse_known_args(arguments)
    unknown = {*options.airflow} - {*ENVIRONMENTS}
    if unknown:
        parser.error(f"there is no environment for Airflow {', '.join(unknown)}, only for {[*ENVIRONMENTS]}")
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    for airflow in options.airflow:
        rows += _run(airflow, [*SETS[options.set], *more])
    _tell(rows, time.monotonic() - started)
    return 0 if all(row["outcome"] in _ENOUGH for row in rows) else 1


def _run(airflow: str, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Return the outcome of each scenario on one Airflow, and one more if the run was cut off."""
    report = REPORTS / f"airflow-{airflow}.json"
    report.unlink(missing_ok=True)
    python = ROOT / ENVIRONMENTS[airflow] / "bin" / "python"
    command = [str(python), "-m", "pytest", "tests/e2e", "--report", str(report), *arguments]
    started = time.monotonic()
    # In our process group: Ctrl-C is for it too, and it stops what it has started.
    with subprocess.Popen(command, cwd=ROOT) as running:
        try:
            code = running.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            running.terminate()
            code = -1
    rows: list[dict[str, Any]] = json.loads(report.read_text()) if report.exists() else []
    if code != 0 and all(row["outcome"] in _ENOUGH for row in rows):
        end = {"scenario": "the whole", "airflow": airflow, "outcome": f"ended with {code}"}
        rows.append({**end, "seconds": round(time.monotonic() - started, 1)})
    return rows


def _tell(rows: list[dict[str, Any]], seconds: float) -> None:
    """Print the report, and write it to a file."""
    table = Table(title="System tests on a real scheduler", title_justify="left")
    for name in ("scenario", "Airflow", "outcome"):
        table.add_column(name, overflow="fold")
    table.add_column("seconds", justify="right")
    for row in rows:
        style = "" if row["outcome"] in _ENOUGH else "bold red"
        shown = (escape(row["scenario"]), row["airflow"], row["outcome"], f"{row['seconds']:.1f}")
        table.add_row(*shown, style=style)
        for note in row.get("notes", ()):
            table.add_row(escape(f"  {note}"))
    held = sum(row["outcome"] in _ENOUGH for row in rows)
    total = f"{held} of {len(rows)} held, in {seconds:.0f} s"
    REPORTS.mkdir(parents=True, exist_ok=True)
    path = REPORTS / "report.txt"
    with path.open("w") as file:
        for console in (Console(width=100), Console(file=file, width=100)):
            console.print(table)
            console.print(total, highlight=False)
    print(f"The same is in {path.relative_to(ROOT)}")  # noqa: T201 - this is what it is run for


if __name__ == "__main__":
    sys.exit(main())
