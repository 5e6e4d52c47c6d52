"""What a task wants started, and how it finds what an earlier try has started."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.dbos.workflows import ids
from airflow_provider_lakets.dbos.workflows.control import fork, is_marked, resume, rewind
from airflow_provider_lakets.dbos.workflows.ids import STARTED_BY, STOPPED, TOLD
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
        """Return a short label of workflow and arguments; refuse arguments that are not JSON."""
        from dbos import DBOSPortableJSONSerializer

        name = self.options["workflow_name"]
        if hook.serialization == "native":
            return ids.digest([name, repr((self.args, sorted(self.kwargs.items())))])
        try:
            text = DBOSPortableJSONSerializer().serialize([list(self.args), self.kwargs])
            text.encode()
        except (TypeError, ValueError) as err:
            raise DBOSSettingError(
                f"The arguments of DBOS workflow {name!r} cannot be written as JSON: {err}. Give texts, "
                "numbers, dates, lists and dicts; or ask for serialization='native', which pickles them."
            ) from None
        return ids.digest([name, text])

    @property
    def app_version(self) -> str | None:
        """The version that is asked for, if any."""
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
        :param owner: The application that owns the queue: it, and no other, is to run the workflow.
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
    """Return the attributes; refuse what JSON cannot hold, and the names that tasks use."""
    if attributes is not None and not hasattr(attributes, "items"):
        raise DBOSSettingError(f"attributes must be a dict that JSON can hold, not {attributes!r}.")
    try:
        found = dict(attributes or {})
        json.dumps(found)
    except (TypeError, ValueError) as err:
        raise DBOSSettingError(f"attributes must be a dict that JSON can hold: {err}.") from None
    if reserved := sorted({STARTED_BY, TOLD, STOPPED} & found.keys()):
        raise DBOSSettingError(f"attributes must not have {reserved[0]!r}: a task keeps its notes there.")
    return found


def check(hook: DBOSHook, order: Order) -> str | None:
    """Refuse what would wait forever; return the application that owns the queue."""
    queue = hook.find_queue(order.options["queue_name"])
    queue.check_partition(order.options.get("queue_partition_key"))
    if order.app_version:
        hook.check_version(order.app_version)
    return queue.application


def bring_up(hook: DBOSHook, order: Order, on_terminal: str, from_step: int | None) -> str:
    """
    Return the id of the workflow to wait for: it is there, enqueued now or by an earlier try.

    :param on_terminal: What to do with one that has ended, and whose end was told.
    :param from_step: Where to begin it again.
    """
    owner = check(hook, order)
    order.digest(hook)
    row = _row(hook, order)
    if not row:
        return _enqueue(hook, order, order.workflow_id, owner)
    latest = _latest(order, row)
    status = row[latest]
    if status.status == CANCELLED and is_marked(status, STOPPED):
        _check_same(hook, order, status)
        resume(hook, status, order.options["queue_name"])
        return latest
    ends_here = has_ended(status) and is_marked(status, TOLD)
    if ends_here and on_terminal == "new":
        return _enqueue(hook, order, ids.successor(order.workflow_id, row), owner)
    _check_same(hook, order, status)
    if ends_here and on_terminal == "fork":
        new = ids.successor(order.workflow_id, row)
        _check_runs(hook, order, owner)
        fork(hook, latest, new, from_step, **_where(order))
        return new
    if status.status in WAITING:
        _check_runs(hook, order, owner, status.app_version)
    elif reason := why_stuck(hook, status):
        raise wrapped(DBOSWorkflowError, f"DBOS workflow {latest} is {status.status}. {reason}")
    if ends_here:
        _again(hook, order, status, on_terminal, from_step)
    return latest


def find_latest(hook: DBOSHook, order: Order) -> str:
    """Return the id of the latest workflow of a task, or the id that its first one would have."""
    return _latest(order, _row(hook, order) or [order.workflow_id])


def enqueue_all(
    hook: DBOSHook, order: Order, items: Sequence[Any], on_terminal: str, from_step: int | None
) -> list[str]:
    """
    Enqueue a workflow for each item without one, all or none; return the ids in order.

    Those that did not succeed are resumed or rewound as ``on_terminal`` says; those that did are
    left alone.
    """
    owner = check(hook, order)
    named = dict(zip(order.item_ids(hook, items), items, strict=True))
    there = hook.statuses(named)
    # In one order for everybody: another scheduler that inserts the same waits, and does not
    # deadlock.
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
            _again(hook, order, status, on_terminal, from_step)
    return list(named)


def _latest(order: Order, row: Iterable[str]) -> str:
    return max(row, key=lambda one: ids.number(order.workflow_id, one))


def _row(hook: DBOSHook, order: Order) -> dict[str, WorkflowStatus]:
    """Return the workflow of a task, and those that came after it."""
    base = order.workflow_id
    found = hook.statuses([base])
    if found:
        with hook.doing(f"Looking up what came after DBOS workflow {base}") as client:
            later = client.list_workflows(workflow_id_prefix=f"{base}#", load_input=False, load_output=False)
        found.update({one.workflow_id: one for one in later if ids.is_of(base, one.workflow_id)})
    return found


def _check_runs(hook: DBOSHook, order: Order, owner: str | None, version: str | None = None) -> None:
    """Refuse to wait for a version that no program runs, unless the task names that version."""
    if not order.app_version:
        check_version_runs(hook, hook.application or owner, version)


def _warn_of_name(hook: DBOSHook, order: Order) -> None:
    """Log what looks like a wrong name; it may also be the first run of a workflow."""
    if warning := unseen_name(hook, order.options["workflow_name"]):
        log.warning("%s If the name is wrong, the workflow never ends.", warning)


def _where(order: Order) -> dict[str, Any]:
    """Return where a workflow runs that is run again."""
    options = ("queue_name", "queue_partition_key")
    return {"application_version": order.app_version, **{name: order.options.get(name) for name in options}}


def _enqueue(hook: DBOSHook, order: Order, workflow_id: str, owner: str | None) -> str:
    _check_runs(hook, order, owner)
    _warn_of_name(hook, order)
    options = order.enqueue_options(hook, workflow_id, owner)
    with hook.doing(f"Enqueueing DBOS workflow {order.options['workflow_name']!r}") as client:
        return client.enqueue(options, *order.args, **order.kwargs).get_workflow_id()


def _again(
    hook: DBOSHook, order: Order, status: WorkflowStatus, on_terminal: str, from_step: int | None
) -> None:
    from airflow_provider_lakets.dbos.workflows.control import RESUMABLE

    if on_terminal == "resume" and status.status in RESUMABLE:
        resume(hook, status, order.options["queue_name"])
    elif on_terminal == "rewind":
        _check_runs(hook, order, status.application_name, status.app_version)
        rewind(hook, status, from_step, **_where(order))


def _check_same(hook: DBOSHook, order: Order, status: WorkflowStatus) -> None:
    """Refuse to wait for a workflow that does something else than what the task asks for."""
    name, asked = status.name, order.options["workflow_name"]
    told = (status.attributes or {}).get(STARTED_BY)
    if name != asked:
        what = f"it is a workflow {name!r}, not {asked!r}"
    elif isinstance(told, dict) and told.get("arguments") not in (None, order.digest(hook)):
        what = "it was started with other arguments than the task has now"
    else:
        return
    raise DBOSSettingError(
        f"DBOS workflow {status.workflow_id} is there ({status.status}), but {what}. They would be ignored. "
        "Give the workflow another workflow_id, run the DAG anew, or, to start another one once this has "
        "ended, set on_terminal='new'."
    )
