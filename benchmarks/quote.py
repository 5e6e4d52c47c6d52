"""Quote the figures of results.json in docs/performance.md: ``python -m benchmarks.quote``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"


def main() -> None:
    """Replace what stands between the markers of each scale."""
    text = DOCUMENT.read_text()
    for scale, run in json.loads(RESULTS.read_text()).items():
        begin, end = f"<!-- figures: {scale} -->\n", "<!-- end -->"
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}{_quoted(scale, run)}{end}{rest.partition(end)[2]}"
    DOCUMENT.write_text(text)


def _quoted(scale: str, run: dict[str, Any]) -> str:
    machine = run["machine"]
    lines = [
        f"`python -m benchmarks --scale {scale}`, {run['measured_at'][:10]}: {run['postgres']} on "
        f"{machine['cores']} cores ({machine['cpu']}, {machine['system']}), "
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
            _number(figure["floor"], figure["unit"]),
            _number(figure["engine"], figure["unit"]),
            ratio,
            figure["bar"] or "",
            verdict,
        ]
        lines.append(f"| {' | '.join(cells)} |")
        group = figure["group"]
    return "\n".join(lines) + "\n"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


if __name__ == "__main__":
    main()
