"""The README quotes existing code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_quoted_dag_is_the_sample_dag() -> None:
    (quoted,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    assert quoted == (ROOT / "dags" / "lakets_tiering.py").read_text()


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for call in re.findall(r"make ((?:[a-z-]+ ?)+)", README) for name in call.split()}

    assert {"demo", "test"} <= named & targets


def test_every_schedule_told_is_that_of_its_dag() -> None:
    told = dict(re.findall(r"`(lakets_\w+)` \| ([^|]+?) \|", README))
    crons = {
        "every 6 h": "0 */6 * * *",
        "02:00": "0 2 * * *",
        "03:00": "0 3 * * *",
        "every 15 min": "*/15 * * * *",
    }

    scheduled = {
        name: re.search(r'schedule=(?:\w+\()?"([^"]+)"', (ROOT / "dags" / f"{name}.py").read_text())
        for name in told
    }

    assert {name: match and match[1] for name, match in scheduled.items()} == {
        name: crons[when] for name, when in told.items()
    }
