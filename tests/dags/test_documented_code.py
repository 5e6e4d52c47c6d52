"""Each Python block of the documents makes the DAGs that it shows; two documents have tests of their own."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = [
    pytest.param(textwrap.dedent(block), id=f"{path.stem}-{number}")
    for path in sorted(DOCS.glob("*.md"))
    if path.stem not in ("tutorial", "dbos")
    for number, (_, block) in enumerate(
        re.findall(r"^( *)```python\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE)
    )
]
# What a block leaves to the DAG around it.
AROUND = """
from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_provider_lakets.assets import rollup_asset, tiered_asset
from airflow_provider_lakets.operators.alerts import LakeTSAlertOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator


def load():
    return EmptyOperator(task_id="load")


outer = DAG("outer")
with outer:
    candidates = LakeTSTierCandidatesOperator(task_id="candidates")
"""


def test_the_documents_have_code() -> None:
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_the_documents_makes_tasks(block: str) -> None:
    from airflow.sdk import DAG

    world: dict[str, object] = {}
    exec(AROUND, world)
    opens_its_own = "DAG(" in block or "lakets_dags(" in block

    exec(block if opens_its_own else f"with outer:\n{textwrap.indent(block, '    ')}", world)

    outer = world["outer"]
    assert isinstance(outer, DAG)
    assert opens_its_own or len(outer.tasks) == 2
