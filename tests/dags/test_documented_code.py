"""The Python code in the documents runs unchanged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_provider_lakets.assets import tiered_asset
from airflow_provider_lakets.operators.alerts import LakeTSAlertOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.dags.conftest import Run
    from tests.lab import Lab

    RunDag = Callable[[DAG], Run]

ROOT = Path(__file__).parents[2]
# These have tests of their own: tests/dbos/test_documented_code.py,
# tests/local/server/test_tutorial.py.
ELSEWHERE = {"docs/dbos.md", "docs/tutorial.md"}


def blocks(document: str) -> list[str]:
    """Return the Python of a document, block by block."""
    text = (ROOT / document).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def documents() -> list[str]:
    """Return the documents that have Python, with their path in the repository."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(name for name in (str(path.relative_to(ROOT)) for path in paths) if blocks(name))


@pytest.fixture
def engine() -> str:
    return "ours"


@pytest.fixture
def tiered(lab: Lab) -> Lab:
    """A table with chunks to tier and to drop, all flushed, and a RollUp."""
    lab.synced(days=6)
    lab.rollup("daily")
    lab.hook().refresh()
    lab.flush()
    return lab


def test_every_operator_sensor_and_trigger_has_an_example() -> None:
    public = {
        name
        for folder in ("operators", "sensors", "triggers")
        for path in (ROOT / "airflow_provider_lakets" / folder).glob("*.py")
        if path.stem not in ("base", "watch") and not path.stem.startswith("_")
        for name in re.findall(r"^class (LakeTS\w+)", path.read_text(), re.MULTILINE)
    }

    shown = set(re.findall(r"(LakeTS\w+)[.(]", "".join(blocks("docs/operators.md"))))

    assert public - shown == set()


def test_the_examples_of_operators_and_sensors_succeed(dag: DAG, run: RunDag, tiered: Lab) -> None:
    names: dict[str, Any] = {}
    with dag:
        for block in blocks("docs/operators.md"):
            exec(block, names)

    done = run(dag)

    failed = {task: state for task, state in done.states.items() if state not in ("success", "skipped")}
    assert failed == {}, done.errors
    assert {result["outcome"] for result in done.results("tier")[0]} == {"tiered"}
    assert done.results("drop")[0]["dropped"]


@pytest.mark.parametrize("document", sorted({*documents()} - ELSEWHERE - {"docs/operators.md"}))
def test_the_code_of_a_document_makes_dags(document: str) -> None:
    def load() -> EmptyOperator:
        return EmptyOperator(task_id="load")

    for block in blocks(document):
        with DAG("documented") as dag:
            # The objects that the text around the blocks assumes.
            names = {
                "DAG": DAG,
                "LakeTSAlertOperator": LakeTSAlertOperator,
                "LakeTSTierOperator": LakeTSTierOperator,
                "tiered_asset": tiered_asset,
                "load": load,
            }
            if "candidates" in block and "candidates =" not in block:
                names["candidates"] = LakeTSTierCandidatesOperator(task_id="candidates")
            before = {*names}

            exec(block, names)

        assert dag.tasks or {*names} - before


def test_every_document_with_python_is_run() -> None:
    assert {*documents()} >= ELSEWHERE
    for document in ELSEWHERE:
        assert "```python" in (ROOT / document).read_text()
