"""Start the workflow of a task, or find the one that an earlier try started."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.dbos.workflows import ids
from airflow_provider_lakets.dbos.workflows.control import fork, is_marked, resume, rewind
from airflow_provider_lakets.dbos.workflows.ids import REPORTED, STARTED_BY, STOPPED
from airflow_provider_lakets.dbos.workflows.late import unseen_name
from airflow_provider_lakets.dbos.workflows.outcomes import CANCELLED, SUCCESS, WAITING, has_ended
from airflow_provider_lakets.dbos.workflows.versions import check_version_runs, why_stuck
from airflow_provider_lakets.exceptions import DBOSSettingError, DBOSWorkflowError, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow.sdk import Context
    from dbos import WorkflowStatus

    from airflow_provider_lakets.dbos.hook import DBOSHook


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """A workflow to be started: its id, its arguments, and the options of DBOS."""

    workflow_id: str
    is_own_id: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    attributes: dict[str, Any]
    task: dict[str, Any]

    @classmethod
    def of(
        cls,
        context: Context,
        *,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        attributes: Mapping[str, Any] | None,
        workflow_id: str | None,
        **options: Any,
    ) -> Order:
        """Return the order of a task."""
        if isinstance(args, (str, bytes)) or (kwargs is not None and not hasattr(kwargs, "items")):
            raise DBOSSettingError(
                f"workflow_args must be a list, workflow_kwargs a dict; they are {args!r} and {kwargs!r}. A "
                "template that returns such needs render_template_as_native_obj in the DAG."
            )
        return cls(
            workflow_id=workflow_id or ids.task_id_of(context),
            is_own_id=workflow_id is not None,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={name: value for name, value in options.items() if value is not None},
            attributes=_checked(attributes),
            task=ids.started_by(context),
        )

    def digest(self, hook: DBOSHook) -> str:
        """Return a short label of workflow and arguments; refuse what cannot be written."""
        from dbos import DBOSPortableJSONSerializer

        name = self.options["workflow_name"]
        if hook.serialization == "native":
            try:
                return ids.digest([name, ids.spelled([self.args, self.kwargs])])
            except (TypeError, AttributeError, RecursionError) as err:
                raise DBOSSettingError(
                    f"The arguments of DBOS workflow {name!r} cannot be pickled: {err}."
                ) from None
        try:
            text = DBOSPortableJSONSerializer().serialize([list(self.args), self.kwargs])
            text.encode()
        except (TypeError, ValueError) as err:
            raise DBOSSettingError(
                f"The arguments of DBOS workflow {name!r} cannot be written as JSON: {err}. Give texts, "
                "numbers, dates, lists and dicts; or use serialization='native', which pickles them."
            ) from None
        return ids.digest([name, text])

    def is_own(self, workflow_id: str) -> bool:
        """Return whether a workflow is of this task, and not one that it only waits for."""
        return ids.is_of(self.workflow_id, workflow_id)

    @property
    def app_version(self) -> str | None:
        """The requested version, if any."""
        return self.options.get("app_version")

    def with_item(self, item: Any) -> Order:
        """Return the order for one item."""
        if isinstance(item, dict):
            return replace(self, kwargs={**self.kwargs, **item})
        if isinstance(item, (list, tuple)):
            return replace(self, args=(*self.args, *item))
        return replace(self, args=(*self.args, item))

    def item_ids(self, hook: DBOSHook, items: Sequence[Any]) -> list[str]:
        """Return the ids of the workflows of items, in their order."""
        return ids.item_ids(self.workflow_id, [self.with_item(item).digest(hook) for item in items])

    def enqueue_options(self, hook: DBOSHook, workflow_id: str, owner: str | None) -> Any:
        """
        Return the options for DBOS.

        :param workflow_id: The id.
        :param owner: The application that owns the queue; only it may run the workflow.
        """
        from dbos import WorkflowSerializationFormat

        options = {**self.options, "workflow_id": workflow_id}
        if "deduplication_id" not in options:
            options.pop("duplication_policy", None)
        if hook.serialization == "portable":
            options["serialization_type"] = WorkflowSerializationFormat.PORTABLE
        if hook.application or owner:
            options["application_name"] = hook.application or owner
        mine = {**self.task, "arguments": self.digest(hook)}
        return {**options, "attributes": {**self.attributes, STARTED_BY: mine}}


def _checked(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the attributes; refuse values that JSON cannot hold, and reserved names."""
    if attributes is not None and not hasattr(attributes, "items"):
        raise DBOSSettingError(f"attributes must be a dict that JSON can hold, not {attributes!r}.")
    try:
        found = dict(attributes or {})
        json.dumps(found)
    except (TypeError, ValueError) as err:
        raise DBOSSettingError(f"attributes must be a dict that JSON can hold: {err}.") from None
    if reserved := sorted({STARTED_BY, REPORTED, STOPPED} & found.keys()):
        raise DBOSSettingError(f"attributes must not have {reserved[0]!r}: it is reserved for the task.")
    return found


def check(hook: DBOSHook, order: Order) -> str | None:
    """Refuse a workflow that would wait forever; return the application that owns the queue."""
    queue = hook.find_queue(order.options["queue_name"])
    queue.check_partition(order.options.get("queue_partition_key"))
    if order.app_version:
        hook.check_version(order.app_version)
    return queue.application


def find_or_start(hook: DBOSHook, order: Order, on_terminal: str, from_step: int | None) -> str:
    """
    Return the id of the workflow to wait for; enqueue it if no earlier try has done so.

    :param on_terminal: What to do if it has ended and its end was reported.
    :param from_step: The step from which to run it again.
    """
    owner = check(hook, order)
    order.digest(hook)
    series = _series(hook, order)
    if not series:
        return _enqueue(hook, order, order.workflow_id, owner)
    latest = _latest(order, series)
    status = series[latest]
    if status.status == CANCELLED and is_marked(status, STOPPED):
        _check_same(hook, order, status)
        resume(hook, status, order.options["queue_name"])
        return latest
    is_over = has_ended(status) and is_marked(status, REPORTED)
    if is_over and on_terminal == "new":
        return _enqueue(hook, order, ids.successor(order.workflow_id, series), owner)
    _check_same(hook, order, status)
    if is_over and on_terminal == "fork":
        new = ids.successor(order.workflow_id, series)
        _check_runs(hook, order, owner)
        fork(hook, latest, new, from_step, **_where(order))
        return new
    if status.status in WAITING:
        _check_runs(hook, order, owner, status.app_version)
    elif reason := why_stuck(hook, status):
        raise wrapped(DBOSWorkflowError, f"DBOS workflow {latest} is {status.status}. {reason}")
    if is_over:
        _run_again(hook, order, status, on_terminal, from_step)
    return latest


def find_latest(hook: DBOSHook, order: Order) -> str:
    """Return the id of the latest workflow of a task, or the id for its first one."""
    return _latest(order, _series(hook, order) or [order.workflow_id])


def enqueue_all(
    hook: DBOSHook, order: Order, items: Sequence[Any], on_terminal: str, from_step: int | None
) -> list[str]:
    """
    Enqueue a workflow for each item without one, all or none; return the ids in order.

    Workflows that ended without success are resumed or rewound if ``on_terminal`` says so.
    Successful ones are not changed.
    """
    owner = check(hook, order)
    named = dict(zip(order.item_ids(hook, items), items, strict=True))
    there = hook.statuses(named)
    # Sorted, so that another scheduler that inserts the same ids waits and does not deadlock.
    missing = sorted(name for name in named if name not in there)
    if missing:
        _check_runs(hook, order, owner)
        _warn_of_name(hook, order)
    with hook.doing(f"Enqueueing {len(missing)} DBOS workflow(s)") as client, hook.transaction() as conn:
        for name in missing:
            one = order.with_item(named[name])
            options = one.enqueue_options(hook, name, owner)
            client.enqueue_in_transaction(conn, options, *one.args, **one.kwargs)
    for status in there.values():
        if status.status == CANCELLED and is_marked(status, STOPPED):
            resume(hook, status, order.options["queue_name"])
        elif has_ended(status) and status.status != SUCCESS:
            _run_again(hook, order, status, on_terminal, from_step)
    return list(named)


def _latest(order: Order, series: Iterable[str]) -> str:
    return max(series, key=lambda one: ids.number(order.workflow_id, one))


def _series(hook: DBOSHook, order: Order) -> dict[str, WorkflowStatus]:
    """Return the first workflow of a task and its successors."""
    base = order.workflow_id
    found = hook.statuses([base])
    if found:
        with hook.doing(f"Looking up the successors of DBOS workflow {base}") as client:
            later = client.list_workflows(workflow_id_prefix=f"{base}#", load_input=False, load_output=False)
        found.update({one.workflow_id: one for one in later if ids.is_of(base, one.workflow_id)})
    return found


def _check_runs(hook: DBOSHook, order: Order, owner: str | None, version: str | None = None) -> None:
    """Refuse to wait for a version that no program runs, unless the task names that version."""
    if not order.app_version:
        check_version_runs(hook, hook.application or owner, version)


def _warn_of_name(hook: DBOSHook, order: Order) -> None:
    """Log a warning if the name looks wrong; it may also be the first run of a workflow."""
    if warning := unseen_name(hook, order.options["workflow_name"]):
        log.warning("%s If the name is wrong, the workflow never ends.", warning)


def _where(order: Order) -> dict[str, Any]:
    """Return the version and the queue for a workflow that runs again."""
    options = ("queue_name", "queue_partition_key")
    return {"application_version": order.app_version, **{name: order.options.get(name) for name in options}}


def _enqueue(hook: DBOSHook, order: Order, workflow_id: str, owner: str | None) -> str:
    _check_runs(hook, order, owner)
    _warn_of_name(hook, order)
    options = order.enqueue_options(hook, workflow_id, owner)
    with hook.doing(f"Enqueueing DBOS workflow {order.options['workflow_name']!r}") as client:
        return client.enqueue(options, *order.args, **order.kwargs).get_workflow_id()


def _run_again(
    hook: DBOSHook, order: Order, status: WorkflowStatus, on_terminal: str, from_step: int | None
) -> None:
    from airflow_provider_lakets.dbos.workflows.control import RESUMABLE

    if on_terminal == "resume" and status.status in RESUMABLE:
        resume(hook, status, order.options["queue_name"])
    elif on_terminal == "rewind":
        _check_runs(hook, order, status.application_name, status.app_version)
        rewind(hook, status, from_step, **_where(order))


def _check_same(hook: DBOSHook, order: Order, status: WorkflowStatus) -> None:
    """Refuse to wait for a workflow with another name or other arguments than the task has."""
    name, asked = status.name, order.options["workflow_name"]
    starter = (status.attributes or {}).get(STARTED_BY)
    if name != asked:
        what = f"it is a workflow {name!r}, not {asked!r}"
    elif isinstance(starter, dict) and starter.get("arguments") not in (None, order.digest(hook)):
        what = "it was started with other arguments than the task has now"
    else:
        return
    raise DBOSSettingError(
        f"DBOS workflow {status.workflow_id} exists ({status.status}), but {what}. It would not do what the "
        "task asks for. Give the workflow another workflow_id, start a new DAG run, or set "
        "on_terminal='new' to start another one once this has ended."
    )
