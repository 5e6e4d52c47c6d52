"""How workflows ended: their results, or the step that failed. Unpickles on request only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import DBOSSettingError, LakeTSError
from airflow_provider_lakets.login.gate import said

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dbos import WorkflowStatus

    from airflow_provider_lakets.dbos.hook import DBOSHook

WAITING = ("ENQUEUED", "DELAYED")
ACTIVE = ("PENDING", *WAITING)
SUCCESS, ERROR, CANCELLED = "SUCCESS", "ERROR", "CANCELLED"
GIVEN_UP = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"

_NO_CLASS = (
    "it cannot be unpickled, for example because its class is not installed in Airflow. Install it; or let "
    "the workflow return what JSON can hold, without serialization='native'; the log of its program may say "
    "more"
)
_PORTABLE, _PICKLE = "portable_json", "py_pickle"
_PICKLE_TEXT = "gA"  # the start of a recorded pickle, in base64

_FORMS = "SELECT workflow_uuid, serialization FROM {schema}.workflow_status WHERE workflow_uuid = ANY(%s)"
_FAILED_STEPS = """
SELECT DISTINCT ON (workflow_uuid) workflow_uuid, function_id, function_name
  FROM {schema}.operation_outputs
 WHERE workflow_uuid = ANY(%s) AND error IS NOT NULL
 ORDER BY workflow_uuid, function_id DESC
"""


@dataclass(frozen=True)
class Step:
    """A step of a workflow: its number, from 1 on, and the name of its function."""

    number: int
    name: str

    def __str__(self) -> str:
        return f"step {self.number} {self.name!r}"


def has_ended(status: WorkflowStatus) -> bool:
    """Return whether a workflow neither runs nor waits."""
    return status.status not in ACTIVE


def failed_steps(hook: DBOSHook, workflow_ids: Iterable[str]) -> dict[str, Step]:
    """Return the last failed step of each workflow by id; some fail outside their steps."""
    rows = hook.rows(_FAILED_STEPS, "Looking for the steps that failed", list(workflow_ids))
    return {workflow_id: Step(number, name) for workflow_id, number, name in rows}


def read_results(hook: DBOSHook, workflow_ids: Sequence[str]) -> dict[str, Any]:
    """Return the results of workflows that succeeded, by id."""
    _check_forms(hook, workflow_ids)
    found = {one.workflow_id: one.output for one in _read(hook, workflow_ids)}
    _check_unpickled(hook, found)
    for name, result in found.items():
        if (number := _unfit(result)) is not None:
            raise DBOSSettingError(
                f"The result of DBOS workflow {name} contains {number}, which Airflow cannot pass on: it "
                "takes finite numbers, and integers of 64 bits. Let the workflow return None or text; "
                "or set wait=False and use DBOSWorkflowSensor."
            )
    return found


def explain(hook: DBOSHook, statuses: Mapping[str, WorkflowStatus]) -> dict[str, str]:
    """
    Return, by id, how each workflow without success ended.

    :param statuses: The statuses of the workflows.
    """
    failed = [name for name, one in statuses.items() if one.status == ERROR]
    steps = failed_steps(hook, failed) if failed else {}
    unreadable = _unreadable(hook, failed)
    errors = {one.workflow_id: one.error for one in _read(hook, [n for n in failed if n not in unreadable])}
    return {
        name: _in_words(one, steps.get(name), errors.get(name), unreadable.get(name))
        for name, one in statuses.items()
        if one.status != SUCCESS
    }


def _in_words(status: WorkflowStatus, step: Step | None, error: Any, unreadable: str | None) -> str:
    where = f"DBOS workflow {status.name!r} ({status.workflow_id})"
    if status.status == ERROR:
        place = f" in {step}" if step else ""
        name = getattr(error, "name", None) or type(error).__name__
        if isinstance(error, str):  # in its recorded form
            unreadable = f"its error cannot be read here: {_NO_CLASS}"
        why = unreadable or f"{name}: {said(error)}"
        return f"{where} failed{place}: {why}"
    if status.status == CANCELLED:
        limit = status.workflow_timeout_ms
        timeout = f", or reached its timeout of {limit / 1000:g} s" if limit else ""
        return f"{where} was cancelled{timeout}"
    if status.status == GIVEN_UP:
        return (
            f"{where} was given up: its process ended in each of {status.recovery_attempts} tries to run it"
        )
    return f"{where} is {status.status}"


def _read(hook: DBOSHook, workflow_ids: Sequence[str]) -> list[WorkflowStatus]:
    from airflow_provider_lakets.dbos.hook import IDS_AT_ONCE

    found: list[WorkflowStatus] = []
    with hook.doing(f"Reading the results of {len(workflow_ids)} DBOS workflow(s)") as client:
        for start in range(0, len(workflow_ids), IDS_AT_ONCE):
            some = list(workflow_ids[start : start + IDS_AT_ONCE])
            found += client.list_workflows(workflow_ids=some, load_input=False)
    return found


def _unreadable(hook: DBOSHook, workflow_ids: Sequence[str]) -> dict[str, str]:
    """Return the workflows whose result or error cannot be read here, with the reason."""
    known = {_PORTABLE, _PICKLE} if hook.serialization == "native" else {_PORTABLE}
    rows = (
        hook.rows(_FORMS, "Looking up how results were recorded", list(workflow_ids)) if workflow_ids else []
    )
    return {name: _why_not(form) for name, form in rows if form not in known}


def _why_not(form: str | None) -> str:
    if form == _PICKLE:
        return (
            "it was recorded by Python's pickle, which is not read in Airflow. Start the workflow from here, "
            "or let its program start it with serialization_type PORTABLE; or use serialization='native', if "
            "everybody who may write to the system database may run code in Airflow"
        )
    return f"it was recorded by the serializer {form!r} of its program, which is not known here"


def _check_unpickled(hook: DBOSHook, results: Mapping[str, Any]) -> None:
    """Refuse results that DBOS could not unpickle; it returns them in their recorded form."""
    for name, result in results.items():
        if hook.serialization == "native" and isinstance(result, str) and result.startswith(_PICKLE_TEXT):
            try:
                with hook.doing(f"Reading the result of DBOS workflow {name}") as client:
                    client.retrieve_workflow(name).get_result()
            except LakeTSError:
                raise
            except Exception as err:  # of whatever kind the pickled class raises
                why = f"{_NO_CLASS} ({type(err).__name__}: {said(err)})"
                raise DBOSSettingError(f"The result of DBOS workflow {name} cannot be read: {why}.") from err


def _unfit(result: Any) -> float | None:
    """Return a number in a result that Airflow cannot send: NaN, infinity, or a large integer."""
    if isinstance(result, float):
        return None if math.isfinite(result) else result
    if isinstance(result, int):
        return None if -(2**63) <= result < 2**64 else result
    if not isinstance(result, (dict, list, tuple)):
        return None
    parts = result.values() if isinstance(result, dict) else result
    return next((number for part in parts if (number := _unfit(part)) is not None), None)


def _check_forms(hook: DBOSHook, workflow_ids: Sequence[str]) -> None:
    for name, why in _unreadable(hook, workflow_ids).items():
        raise DBOSSettingError(f"The result of DBOS workflow {name} cannot be read: {why}.")
