"""The SQL in the documents runs unchanged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
# docs/permissions.md (test_documented_rights.py) and docs/monitoring.md (test_grafana.py) have
# their own.
DOCUMENTS = [
    "README",
    "docs/compatibility",
    "docs/last_values",
    "docs/moving",
    "docs/rollups",
    "docs/storage",
]
TABLES_MADE = {"docs/moving": 2}
TABLE = """
CREATE TABLE metrics (
    ts timestamptz NOT NULL, device text NOT NULL, value float8, temperature float8, humidity float8
);
INSERT INTO metrics VALUES ('2024-01-01 12:30+00', 'a', 1, 20, 0.5);
CREATE TABLE requests AS SELECT now() + s * interval '1 second' AS ts, s * 2.0::float8 AS n
                           FROM generate_series(1, 3) AS s;
"""
# The objects that the text around the blocks assumes.
BEFORE = {
    "docs/last_values": "SELECT lakets.create_chronotable('metrics', 'ts')",
    "docs/rollups": "SELECT lakets.create_chronotable('metrics', 'ts')",
    "docs/storage": "SELECT lakets.create_chronotable('metrics', 'ts'); SELECT lakets.enable_sync('metrics')",
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_sql_of_a_document_runs(db: Sandbox, document: str) -> None:
    blocks = re.findall(
        r"^ *```sql\n(.*?)^ *```", (ROOT / f"{document}.md").read_text(), re.DOTALL | re.MULTILINE
    )
    db.run(TABLE)
    db.run(BEFORE.get(document, "SELECT"))

    for block in blocks:
        db.run(block)

    assert blocks
    assert db.value("SELECT count(*) FROM lakets._chronotable_registry") == TABLES_MADE.get(document, 1)


def test_every_document_with_sql_is_run() -> None:
    with_sql = {
        str(path.relative_to(ROOT).with_suffix(""))
        for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        if "```sql" in path.read_text()
    }

    assert with_sql == {*DOCUMENTS, "docs/dbos", "docs/permissions", "docs/monitoring"}


def test_what_was_loaded_into_a_rollup_by_hand_outlives_the_refresh(db: Sandbox) -> None:
    db.run(TABLE)

    for block in re.findall(
        r"^```sql\n(.*?)^```", (ROOT / "docs/moving.md").read_text(), re.DOTALL | re.MULTILINE
    ):
        db.run(block)

    assert db.run("SELECT extract(year FROM bucket)::int, mean FROM _rollup_hourly ORDER BY 1") == [
        (2020, 17.5),
        (2024, 1.0),
    ]
