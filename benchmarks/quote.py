"""Quote the figures of results.json in docs/performance.md: ``python -m benchmarks.quote``."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.document import fill
from benchmarks.report import RESULTS, number


def main() -> None:
    """Replace the table of each scale."""
    for scale, run in json.loads(RESULTS.read_text()).items():
        fill("performance.md", f"figures: {scale}", _quoted(scale, run))


def _quoted(scale: str, run: dict[str, Any]) -> str:
    machine = run["machine"]
    lines = [
        f"`python -m benchmarks --scale {scale}`, {run['measured_at'][:10]}: {run['postgres']} on "
        f"{machine['cores']} cores ({machine['cpu']}), "
        f"load average {run['load_average']}.",
        "",
        "| | operation | floor | engine | ratio | bar | |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    group = ""
    for figure in run["figures"]:
        ratio = f"{figure['ratio']:.2f}" if figure["ratio"] is not None else ""
        verdict = {True: "pass", False: "**miss**", None: ""}[figure["passed"]]
        cells = [
            figure["group"] if figure["group"] != group else "",
            figure["operation"],
            number(figure["floor"], figure["unit"]) if figure["floor"] is not None else "",
            number(figure["engine"], figure["unit"]),
            ratio,
            figure["bar"] or "",
            verdict,
        ]
        lines.append(f"| {' | '.join(cells)} |")
        group = figure["group"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
