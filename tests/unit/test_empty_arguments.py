"""An empty template or mapping never means "all", nor "there is nothing to wait for"."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_lakets.exceptions import LakeTSArgumentError
from airflow_provider_lakets.operators.approval import LakeTSForceApprovalOperator
from airflow_provider_lakets.operators.install import LakeTSInstallOperator
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.summary import LakeTSSummaryOperator
from airflow_provider_lakets.operators.tables import LakeTSTablesOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator
from airflow_provider_lakets.sensors.durability import LakeTSDurabilitySensor
from airflow_provider_lakets.sensors.rollups import LakeTSRollupFreshSensor
from airflow_provider_lakets.triggers.durability import LakeTSDurabilityTrigger
from airflow_provider_lakets.triggers.rollups import LakeTSRollupFreshTrigger
from airflow_provider_lakets.triggers.tiering import LakeTSTierTrigger

CHUNK = "public.metrics_20250101_000000"
RANGE = {"range_start": "2025-01-01", "range_end": "2025-01-02"}

# Every public operator and sensor, with all of its templated arguments but the connection.
TASKS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "install": (LakeTSInstallOperator, {}),
    "partitions": (LakeTSPartitionOperator, {"tables": "a", "dry_run": False, **RANGE}),
    "candidates": (LakeTSTierCandidatesOperator, {"tables": "a", "dry_run": False}),
    "tier": (LakeTSTierOperator, {"chunks": CHUNK, "dry_run": False}),
    "retention": (
        LakeTSRetentionOperator,
        {"table": "a", "schema": "b", "force": False, "dry_run": False},
    ),
    "rollups": (LakeTSRollupRefreshOperator, {"rollup": "a", "force": False, "dry_run": False, **RANGE}),
    "tables": (LakeTSTablesOperator, {"tables": "a"}),
    "approval": (LakeTSForceApprovalOperator, {"tables": ["a"], "force": True, "dry_run": False}),
    "table": (LakeTSDurabilitySensor, {"table": "a"}),
    "chunks": (LakeTSDurabilitySensor, {"chunks": [CHUNK]}),
    "fresh": (LakeTSRollupFreshSensor, {"rollup": "a", "max_lag": "1 hour", "watermark": "2025-01-01"}),
}
EMPTY: list[object] = [None, "", "None", " \n", [], "[]"]

# To map over nothing is to find nothing to do: what lists the work, lists none.
MAY_BE_NO_LIST: dict[tuple[str, str], list[object]] = {("approval", "tables"): [[], "[]"]}

ARGUMENTS = [(name, field) for name, (_, given) in TASKS.items() for field in [*given, "lakebase_conn_id"]]
CASES = [
    (name, field, value)
    for name, field in ARGUMENTS
    for value in EMPTY
    if value not in MAY_BE_NO_LIST.get((name, field), ())
]


# The approval writes its subject and body itself.
WRITTEN_BY_THE_TASK = {"subject", "body"}


@pytest.mark.parametrize(
    "kind", dict.fromkeys(kind for kind, _ in TASKS.values()), ids=lambda kind: kind.__name__
)
def test_every_templated_argument_is_tried(kind: type[Any]) -> None:
    tried = {field for of, given in TASKS.values() if of is kind for field in given}

    assert tried | {"lakebase_conn_id"} | WRITTEN_BY_THE_TASK == {*kind.template_fields} | WRITTEN_BY_THE_TASK


def rendered(name: str, field: str, value: object, *, native: bool, **how: Any) -> Any:
    """Return a task one of whose arguments is a template that renders to a value."""
    kind, given = TASKS[name]
    with DAG("x", schedule=None, render_template_as_native_obj=native):
        task = kind(task_id="x", **{**given, field: "{{ params.it }}"}, **how)
    task.render_template_fields({"params": {"it": value}})
    return task


def fails_for_good(task: Any, field: str) -> bool:
    with pytest.raises(Exception, match=rf"{field} (was rendered to|must be)") as caught:
        task.execute({"ti": None, "outlet_events": {}})
    return type(caught.value).__name__ == "AirflowFailException"


@pytest.mark.parametrize(("name", "field", "value"), CASES, ids=str)
@pytest.mark.parametrize("native", [True, False], ids=["native", "text"])
def test_an_argument_that_renders_to_nothing_fails_for_good(
    name: str, field: str, value: object, native: bool
) -> None:
    assert fails_for_good(rendered(name, field, value, native=native), field)


@pytest.mark.parametrize(
    ("name", "field"), [one for one in ARGUMENTS if one[0] in ("table", "chunks", "fresh")]
)
@pytest.mark.parametrize("value", EMPTY, ids=repr)
def test_a_sensor_that_would_defer_fails_for_good_too(name: str, field: str, value: object) -> None:
    assert fails_for_good(rendered(name, field, value, native=True, deferrable=True), field)


@pytest.mark.parametrize("value", [["a", None], ["a", ""], ["a", " "], "['a', '']", ["None"]], ids=repr)
@pytest.mark.parametrize(
    ("name", "field"),
    [("chunks", "chunks"), ("tier", "chunks"), ("partitions", "tables"), ("retention", "table")],
)
def test_a_list_with_an_empty_name_fails_for_good(name: str, field: str, value: object) -> None:
    assert fails_for_good(rendered(name, field, value, native=True), field)


@pytest.mark.parametrize(
    ("kind", "given", "field"),
    [
        (LakeTSPartitionOperator, {}, "tables"),
        (LakeTSTierCandidatesOperator, {}, "tables"),
        (LakeTSTablesOperator, {}, "tables"),
        (LakeTSRollupRefreshOperator, {}, "rollup"),
        (LakeTSRetentionOperator, {}, "table"),
        (LakeTSTierOperator, {}, "chunks"),
        (LakeTSDurabilitySensor, {}, "table"),
        (LakeTSDurabilitySensor, {}, "chunks"),
        (LakeTSRollupFreshSensor, {"rollup": "a", "watermark": "2025-01-01"}, "max_lag"),
        (LakeTSRollupFreshSensor, {"rollup": "a", "max_lag": "1 hour"}, "watermark"),
    ],
)
def test_none_that_a_mapping_brings_fails_for_good(
    kind: type[Any], given: dict[str, Any], field: str
) -> None:
    task = kind(task_id="x", _airflow_from_mapped=True, **given, **{field: None})

    assert fails_for_good(task, field)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (LakeTSPartitionOperator, ["tables", "range_start", "range_end"]),
        (LakeTSTierCandidatesOperator, ["tables"]),
        (LakeTSTablesOperator, ["tables"]),
        (LakeTSRollupRefreshOperator, ["rollup", "range_start", "range_end"]),
    ],
)
def test_what_the_author_leaves_out_or_sets_to_none_is_all(kind: type[Any], fields: list[str]) -> None:
    for given in ({}, dict.fromkeys(fields)):
        task = kind(task_id="x", **given)

        assert {getattr(task, field) for field in fields} == {"*"}


@pytest.mark.parametrize("value", [None, "", "None", " "], ids=repr)
def test_a_summary_of_what_nobody_knows_fails_for_good(value: object) -> None:
    with pytest.raises(Exception, match=r"left no list|ended without a result") as caught:
        LakeTSSummaryOperator(task_id="x", given=value, results=[]).execute({"ti": None})  # type: ignore[typeddict-item]

    assert type(caught.value).__name__ == "AirflowFailException"


@pytest.mark.parametrize(
    "trigger",
    [
        lambda until: LakeTSDurabilityTrigger(deadline=until),
        lambda until: LakeTSDurabilityTrigger(chunks=[], deadline=until),
        lambda until: LakeTSTierTrigger(chunks=[], deadline=until),
        lambda until: LakeTSRollupFreshTrigger(rollup="a", deadline=until),
        lambda until: LakeTSRollupFreshTrigger(rollup="a", watermark="", max_lag="", deadline=until),
    ],
)
def test_a_trigger_with_nothing_to_wait_for_does_not_fire(trigger: Any) -> None:
    with pytest.raises(LakeTSArgumentError):
        next(trigger(datetime(2030, 1, 1, tzinfo=timezone.utc)).watch())
