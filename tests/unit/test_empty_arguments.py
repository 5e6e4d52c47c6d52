"""An empty template or mapping never means "all" or "nothing to wait for"."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_lakets.exceptions import LakeTSArgumentError
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.tables import LakeTSTablesOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator
from airflow_provider_lakets.triggers.durability import LakeTSDurabilityTrigger
from airflow_provider_lakets.triggers.rollups import LakeTSRollupFreshTrigger
from airflow_provider_lakets.triggers.tiering import LakeTSTierTrigger
from tests.tasks import TASKS, arguments_of, public_tasks

EMPTY: list[object] = [None, "", "None", " \n", [], "[]"]

# To map over nothing is to find nothing to do: what lists the work, lists none. A workflow may
# have no arguments, and no chunk may be approved. And results that are not there are counted as
# lost, each by its name.
MAY_BE_EMPTY: dict[tuple[str, str], list[object]] = {
    ("approval", "tables"): [[], "[]"],
    ("retention", "approved_chunks"): [[], "[]"],
    ("summary", "given"): [[], "[]"],
    ("summary", "results"): [None, "None", [], "[]"],
    ("workflow", "workflow_args"): [[], "[]"],
    ("workflows", "workflow_args"): [[], "[]"],
    ("workflows", "items"): [[], "[]"],
}

ARGUMENTS = [
    (name, field)
    for name, (kind, given) in TASKS.items()
    for field in [*given, "lakebase_conn_id"]
    if field in kind.template_fields
]

# Settings for which empty is a meaning: forever, or no task.
MEANT: dict[tuple[str, str], list[object]] = {
    ("DBOSEnqueueOperator", "start_timeout"): [None],
    ("LakeTSAlertOperator", "if_alert"): [[]],
    ("LakeTSAlertOperator", "if_quiet"): [[]],
}
SETTINGS = [
    (kind, field)
    for kind in public_tasks()
    for field in arguments_of(kind)
    if field not in kind.template_fields or field == "subject"
]


@pytest.mark.parametrize("kind", public_tasks(), ids=lambda kind: kind.__name__)
def test_every_templated_argument_is_tried(kind: type[Any]) -> None:
    tried = {field for of, given in TASKS.values() if of is kind for field in given}
    templated = {field for field in arguments_of(kind) if field in kind.template_fields}

    assert tried | {"lakebase_conn_id", "subject"} >= templated, "add it to TASKS in tests/tasks.py"
    assert {*kind.template_fields} <= {*arguments_of(kind), "body"}


def is_refused(kind: type[Any], field: str, value: object) -> bool:
    given = next(given for of, given in TASKS.values() if of is kind)
    try:
        kind(task_id="x", **{**given, field: value})
    except ValueError as error:
        return field in str(error)
    return False


@pytest.mark.parametrize(("kind", "field"), SETTINGS, ids=lambda one: getattr(one, "__name__", one))
def test_a_setting_that_is_nothing_is_refused_when_the_dag_is_parsed(kind: type[Any], field: str) -> None:
    meant = MEANT.get((kind.__name__, field), [])
    if arguments_of(kind)[field] is None:
        meant = [*meant, None]

    taken = [value for value in EMPTY if value not in meant and not is_refused(kind, field, value)]
    assert taken == [], (
        f"{field} accepts these: refuse them in the constructor, as the functions at the end of"
        " operators/_arguments.py do; or add them to MEANT if the author may pass them"
    )


def rendered(name: str, field: str, value: object, *, native: bool, **how: Any) -> Any:
    """Return a task one of whose arguments is a template that renders to a value."""
    kind, given = TASKS[name]
    with DAG("x", schedule=None, render_template_as_native_obj=native):
        task = kind(task_id="x", **{**given, field: "{{ params.it }}"}, **how)
    task.render_template_fields({"params": {"it": value}})
    return task


def fails_for_good(task: Any, field: str) -> bool:
    """
    Return whether the task fails without a retry, and for this argument.

    Where another error comes first, the argument was taken although it is empty: read it with
    `operators/_arguments.py` before the login, and give it the default LEFT_OUT.
    """
    with pytest.raises(Exception, match=rf"{field} (was rendered to|must be)") as caught:
        task.execute({"ti": None, "outlet_events": {}})
    return type(caught.value).__name__ == "AirflowFailException"


@pytest.mark.parametrize(("name", "field"), ARGUMENTS)
def test_an_argument_that_renders_to_nothing_fails_for_good(name: str, field: str) -> None:
    for value in EMPTY:
        if value not in MAY_BE_EMPTY.get((name, field), ()):
            for native in (True, False):
                assert fails_for_good(rendered(name, field, value, native=native), field), (value, native)


@pytest.mark.parametrize(
    ("name", "field"), [one for one in ARGUMENTS if one[0] in ("table", "chunks", "fresh", "ended")]
)
def test_a_sensor_that_would_defer_fails_for_good_too(name: str, field: str) -> None:
    for value in EMPTY:
        assert fails_for_good(rendered(name, field, value, native=True, deferrable=True), field), value


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("list", "status"),
        ("list", "workflow_name"),
        ("cancel", "workflow_id"),
        ("ended", "workflow_id"),
        ("chunks", "chunks"),
        ("tier", "chunks"),
        ("partitions", "tables"),
        ("retention", "table"),
    ],
)
def test_a_list_with_an_empty_name_fails_for_good(name: str, field: str) -> None:
    for value in (["a", None], ["a", ""], ["a", " "], "['a', '']", ["None"]):
        assert fails_for_good(rendered(name, field, value, native=True), field), value


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("partitions", "tables"),
        ("candidates", "tables"),
        ("tables", "tables"),
        ("tier", "chunks"),
        ("retention", "table"),
        ("chunks", "chunks"),
        ("list", "status"),
        ("cancel", "workflow_id"),
        ("ended", "workflow_id"),
        ("workflow", "workflow_args"),
        ("workflows", "items"),
    ],
)
def test_an_iterator_fails_for_good_and_loses_no_name(name: str, field: str) -> None:
    kind, given = TASKS[name]
    with DAG("x", schedule=None, render_template_as_native_obj=True):
        task = kind(task_id="x", **{**given, field: "{{ params.it | map('trim') }}"})
    task.render_template_fields({"params": {"it": ["a", "b"]}})

    assert fails_for_good(task, field)


@pytest.mark.parametrize(
    ("name", "field"), [one for one in ARGUMENTS if None not in MAY_BE_EMPTY.get(one, ())]
)
def test_none_that_a_mapping_brings_fails_for_good(name: str, field: str) -> None:
    kind, given = TASKS[name]

    task = kind(task_id="x", _airflow_from_mapped=True, **{**given, field: None})

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
