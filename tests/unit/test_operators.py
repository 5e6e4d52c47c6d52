"""What the operators do before they run: nothing, but refuse what cannot be meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.operators.install import LakeTSInstallOperator
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATORS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "install": (LakeTSInstallOperator, {}),
    "partitions": (LakeTSPartitionOperator, {}),
    "candidates": (LakeTSTierCandidatesOperator, {}),
    "tier": (LakeTSTierOperator, {"chunks": ["public.metrics_20250101_000000"]}),
    "retention": (LakeTSRetentionOperator, {"table": "metrics"}),
    "rollups": (LakeTSRollupRefreshOperator, {}),
}

every = pytest.mark.parametrize(("operator", "arguments"), OPERATORS.values(), ids=OPERATORS)


@every
def test_the_connection_may_be_another_or_a_template(operator: type[Any], arguments: dict[str, Any]) -> None:
    task = operator(task_id="x", lakebase_conn_id="{{ params.conn }}", **arguments)

    assert "lakebase_conn_id" in task.template_fields
    task.render_template_fields({"params": {"conn": "other"}})
    assert task.lakebase_conn_id == "other"


@every
def test_every_template_field_is_an_argument(operator: type[Any], arguments: dict[str, Any]) -> None:
    task = operator(task_id="x", **arguments)

    assert all(hasattr(task, name) for name in task.template_fields)


@every
def test_arguments_are_given_by_name(operator: type[Any], arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        operator("x", *arguments.values())


@every
def test_a_task_that_never_ran_can_be_killed(operator: type[Any], arguments: dict[str, Any]) -> None:
    operator(task_id="x", **arguments).on_kill()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            lambda: LakeTSTierCandidatesOperator(task_id="x", batch_size=0),
            "batch_size must be 1 or more, not 0",
        ),
        (lambda: LakeTSTierCandidatesOperator(task_id="x", max_batches=0), "max_batches must be 1 or more"),
        (lambda: LakeTSRollupRefreshOperator(task_id="x", parallelism=0), "parallelism must be 1 or more"),
        (lambda: LakeTSPartitionOperator(task_id="x", future_count=-1), "future_count must be 0 or more"),
        (lambda: LakeTSPartitionOperator(task_id="x", past_count=-1), "past_count must be 0 or more"),
        (lambda: LakeTSPartitionOperator(task_id="x", range_end="2025-01-01"), "range_start and range_end"),
    ],
    ids=["batch_size", "max_batches", "parallelism", "future_count", "past_count", "half a range"],
)
def test_what_cannot_be_meant_is_refused_when_the_dag_is_parsed(wrong: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wrong()


def test_force_is_off_by_default() -> None:
    assert LakeTSRetentionOperator(task_id="x", table="metrics").force is False


@pytest.mark.parametrize(
    ("chunks", "label"),
    [(["a.b"], "a.b"), ("a.b", "a.b"), (["a.b", "a.c", "a.d"], "a.b and 2 more"), ([], "nothing")],
    ids=["one", "text", "many", "none"],
)
def test_a_tier_task_is_named_after_its_chunks(chunks: Any, label: str) -> None:
    assert LakeTSTierOperator(task_id="x", chunks=chunks).label == label
