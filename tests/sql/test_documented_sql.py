"""The SQL of the documents runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
# docs/permissions.md has a test of its own (test_documented_rights.py).
DOCUMENTS = ["README", "docs/compatibility", "docs/last_values", "docs/rollups", "docs/storage"]
TABLE = """
CREATE TABLE metrics (
    ts timestamptz NOT NULL, device text NOT NULL, value float8, temperature float8, humidity float8
);
INSERT INTO metrics VALUES ('2024-01-01 12:30+00', 'a', 1, 20, 0.5);
CREATE TABLE requests AS SELECT now() + s * interval '1 second' AS ts, s * 2.0::float8 AS n
                           FROM generate_series(1, 3) AS s;
"""
# What the text around the blocks takes for granted.
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
    assert db.value("SELECT count(*) FROM lakets._chronotable_registry") == 1


def test_every_document_with_sql_is_run() -> None:
    with_sql = {
        str(path.relative_to(ROOT).with_suffix(""))
        for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        if "```sql" in path.read_text()
    }

    assert with_sql == {*DOCUMENTS, "docs/permissions"}
