"""Start DBOS workflows from Airflow, each exactly once, and wait for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow_provider_lakets.compat import AirflowTaskTimeout, fail
from airflow_provider_lakets.dbos.base import DBOSBaseOperator
from airflow_provider_lakets.dbos.workflows.start import Order, enqueue_all, find_latest, find_or_start
from airflow_provider_lakets.deferral import ResumingOperator, deadline, raise_if_failed
from airflow_provider_lakets.exceptions import (
    DBOSWorkflowError,
    LakebaseConnectionError,
    LakeTSContendedError,
    wrapped,
)
from airflow_provider_lakets.operators._arguments import (
    LEFT_OUT,
    as_name,
    count,
    interval,
    is_nothing,
    one_of,
    seconds,
    switch,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_provider_lakets.dbos.hook import DBOSHook

OnTerminal = Literal["attach", "resume", "rewind", "fork", "new"]
ON_TERMINAL = ("attach", "resume", "rewind", "fork", "new")

PROBLEMS_SHOWN = 20  # lines of an error

# The key of the XCom with the id of the workflow that ``return-existing`` found.
_OTHER = "other_workflow_id"


class DBOSEnqueueOperator(ResumingOperator, DBOSBaseOperator):
    """
    Enqueue a DBOS workflow exactly once, wait until it has ended, and return its result.

    The id of the workflow consists of DAG, run, task and map index, so retries, cleared tasks and
    several schedulers find the existing workflow. The end of a workflow is reported once. After
    that, ``on_terminal`` sets what a retry does: ``attach`` reports the same end again; ``resume``
    continues a workflow that was cancelled or given up; ``rewind`` runs it again with the same id
    and ``fork`` with a new id, both from ``from_step``; ``new`` starts another workflow.

    With ``items`` it starts a workflow for each item, all in one transaction, and returns the
    list of their results. This replaces thousands of mapped tasks.

    :param workflow_name: Name of the workflow: the qualified name of its function. (templated)
    :param queue_name: The queue, which must exist. (templated)
    :param workflow_args: Positional arguments of the workflow. (templated)
    :param workflow_kwargs: Named arguments of the workflow. (templated)
    :param items: A list with the arguments of each workflow: a dict of named arguments, a list of
        positional arguments, or a single value. They are added to ``workflow_args`` and
        ``workflow_kwargs``. (templated)
    :param class_name: The class, if the workflow is a method.
    :param instance_name: Name of a configured instance.
    :param app_version: Version of the application; it must be registered. The default is the latest
        one, which must be running if another one is. (templated)
    :param priority: 1 or more; smaller numbers start first, and workflows without a number before
        all others.
    :param deduplication_id: At most one workflow with this id is in the queue. (templated)
    :param duplication_policy: ``reject`` a second one, or ``return-existing``: wait for the first.
    :param partition_key: The key for a partitioned queue. (templated)
    :param delay: How long to wait before it may start.
    :param workflow_timeout: How long it may run; then DBOS cancels it.
    :param attributes: Attributes by which it can be listed. (templated)
    :param workflow_id: Your own id; the default is made from the task. (templated)
    :param on_terminal: What a retry does with a workflow that has ended.
    :param from_step: Step for ``rewind`` and ``fork``; the default is the failed step, or the
        first.
    :param wait: Whether to wait; otherwise the id is returned, or the list of ids for ``items``.
    :param deferrable: Whether to wait in the triggerer.
    :param poll_interval: Seconds between two checks.
    :param start_timeout: How long it may wait in its queue after its delay; for ``items``, until
        the first one starts. None means no limit.
    :param end_timeout: How long to wait for the end. The workflow then continues, and a retry waits
        for it again.
    :param cancel_on_kill: Whether to cancel it when the task is stopped; a cleared task resumes it.
    :param cancel_children: Whether to also cancel the workflows that it started.
    """

    template_fields: Sequence[str] = (
        *DBOSBaseOperator.template_fields,
        "workflow_name",
        "queue_name",
        "workflow_args",
        "workflow_kwargs",
        "items",
        "app_version",
        "deduplication_id",
        "partition_key",
        "attributes",
        "workflow_id",
    )

    def __init__(
        self,
        *,
        workflow_name: str,
        queue_name: str,
        workflow_args: Sequence[Any] | None = LEFT_OUT,
        workflow_kwargs: Mapping[str, Any] | None = LEFT_OUT,
        items: Any = LEFT_OUT,
        class_name: str | None = None,
        instance_name: str | None = None,
        app_version: str | None = LEFT_OUT,
        priority: int | None = None,
        deduplication_id: str | None = LEFT_OUT,
        duplication_policy: Literal["reject", "return-existing"] = "reject",
        partition_key: str | None = LEFT_OUT,
        delay: timedelta | float | None = None,
        workflow_timeout: timedelta | float | None = None,
        attributes: Mapping[str, Any] | None = LEFT_OUT,
        workflow_id: str | None = LEFT_OUT,
        on_terminal: OnTerminal = "attach",
        from_step: int | None = None,
        wait: bool = True,
        deferrable: bool = True,
        poll_interval: float = 10,
        start_timeout: timedelta | float | None = timedelta(hours=1),
        end_timeout: timedelta | float = timedelta(days=1),
        cancel_on_kill: bool = True,
        cancel_children: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._given.update(workflow_name=(), queue_name=())
        self.workflow_name = workflow_name
        self.queue_name = queue_name
        self.workflow_args = self.given(workflow_args, "workflow_args", (list, tuple))
        self.workflow_kwargs = self.given(workflow_kwargs, "workflow_kwargs", (dict,))
        self.items = self.given(items, "items", (Sequence,))  # also the results of mapped tasks
        self.app_version = self.given(app_version, "app_version")
        self.deduplication_id = self.given(deduplication_id, "deduplication_id")
        self.partition_key = self.given(partition_key, "partition_key")
        self.attributes = self.given(attributes, "attributes", (dict,))
        self.workflow_id = self.given(workflow_id, "workflow_id")
        self.on_terminal = one_of(on_terminal, "on_terminal", ON_TERMINAL)
        self._has_items = self.is_given("items")
        if from_step is not None and on_terminal not in ("rewind", "fork"):
            raise ValueError(f"from_step is for on_terminal rewind and fork; it is {on_terminal!r}.")
        if self._has_items and (self.is_given("deduplication_id") or self.is_given("workflow_id")):
            raise ValueError("With items there are many workflows: remove deduplication_id and workflow_id.")
        if self._has_items and on_terminal in ("fork", "new"):
            raise ValueError(f"With items on_terminal cannot be {on_terminal!r}: their ids are fixed.")
        if self._has_items and delay is not None:
            raise ValueError("With items there is no delay. Remove it, or let the workflow sleep.")
        self.class_name = None if class_name is None else text(class_name, "class_name")
        self.instance_name = None if instance_name is None else text(instance_name, "instance_name")
        self.priority = None if priority is None else count(priority, "priority", most=2**31 - 1)
        self.duplication_policy = one_of(
            duplication_policy, "duplication_policy", ("reject", "return-existing")
        )
        self.delay = None if delay is None else seconds(delay, "delay")
        self.workflow_timeout = (
            None if workflow_timeout is None else interval(workflow_timeout, "workflow_timeout")
        )
        self.from_step = None if from_step is None else count(from_step, "from_step")
        self.wait = switch(wait, "wait")
        self.deferrable = switch(deferrable, "deferrable")
        self.poll_interval = interval(poll_interval, "poll_interval")
        self.start_timeout = None if start_timeout is None else interval(start_timeout, "start_timeout")
        self.end_timeout = interval(end_timeout, "end_timeout")
        self.cancel_on_kill = switch(cancel_on_kill, "cancel_on_kill")
        self.cancel_children = switch(cancel_children, "cancel_children")
        self._running: list[str] = []
        self._was_stopped = False

    def execute(self, context: Context) -> Any:
        """Start the workflows that do not exist, and wait."""
        from airflow_provider_lakets.dbos.workflows.control import mark
        from airflow_provider_lakets.dbos.workflows.ids import REPORTED

        with self.dbos() as hook:
            order = self.order(context)
            if self._has_items:
                ids = enqueue_all(hook, order, self._items(), self.on_terminal, self.from_step)
            else:
                ids = [find_or_start(hook, order, self.on_terminal, self.from_step)]
            self.log.info("DBOS workflow(s): %s", ids if len(ids) <= PROBLEMS_SHOWN else len(ids))
            # Another task may have started the one that duplication_policy returned.
            is_own = self._has_items or order.is_own(ids[0])
            if not self.wait:
                if not self._has_items and is_own:
                    mark(hook, ids[0], REPORTED)  # its id is the result, so a cleared task may go on from it
                return ids if self._has_items else ids[0]
            if not self._all_ended(hook, ids):
                self._running = ids if is_own else []
                if self.deferrable:
                    self._defer(context, order, ids)
                self._wait_here(hook, ids)
            return self._finish(hook, ids)

    def order(self, context: Context) -> Order:
        """Return the workflow to start."""
        return Order.of(
            context,
            workflow_name=as_name(self.workflow_name, "workflow_name"),
            queue_name=as_name(self.queue_name, "queue_name"),
            args=self.workflow_args or (),
            kwargs=self.workflow_kwargs,
            class_name=self.class_name,
            instance_name=self.instance_name,
            app_version=self.name_or_none("app_version"),
            priority=self.priority,
            deduplication_id=self.name_or_none("deduplication_id"),
            duplication_policy=self.duplication_policy,
            queue_partition_key=self.name_or_none("partition_key"),
            delay_seconds=self.delay,
            workflow_timeout=self.workflow_timeout,
            attributes=self.attributes,
            workflow_id=self.name_or_none("workflow_id"),
        )

    def execute_complete(
        self, context: Context, event: Mapping[str, Any], workflow_ids: Sequence[str] = ()
    ) -> Any:
        """Return the result, or fail with the reason."""
        raise_if_failed(event)
        with self.dbos() as hook:
            ids = list(workflow_ids) or self._ids_again(hook, context)
            if event["status"] == "timed_out" and self.within(self.end_timeout) < self.end_timeout:
                self._check_execution_timeout(hook, context, ids)
            return self._finish(hook, ids)

    def _check_execution_timeout(self, hook: DBOSHook, context: Context, ids: list[str]) -> None:
        """End the task as in a worker: Airflow then calls on_kill, and retries the task."""
        from airflow_provider_lakets.dbos.workflows.outcomes import WAITING, has_ended

        found = hook.statuses(ids)
        patience = self.within(self.end_timeout)
        to_start = None if self.start_timeout is None else self.start_timeout + (self.delay or 0)
        waits = all(one.status in WAITING for one in found.values())
        if waits and to_start is not None and to_start < patience:
            return  # start_timeout is what has passed
        if left := [name for name in ids if name in found and not has_ended(found[name])]:
            is_own = self._has_items or self.order(context).is_own(ids[0])
            self._running = ids if is_own else []
            passed = f"The execution_timeout of {timedelta(seconds=patience)} has passed."
            message = f"{len(left)} of {len(ids)} DBOS workflow(s) have not ended, such as {left[0]}."
            raise wrapped(AirflowTaskTimeout, f"{passed} {message}")

    def on_kill(self) -> None:
        """Cancel the workflows, so that they do not continue unnoticed."""
        self._was_stopped = True
        if self.cancel_on_kill and self._running:
            from airflow_provider_lakets.dbos.workflows.control import stop

            hook = self.make_hook()
            try:
                stopped = stop(hook, self._running, prefix=None, children=self.cancel_children)
                self.log.info("Cancelled %d DBOS workflow(s)", len(stopped))
            finally:
                hook.close()

    def _ids_again(self, hook: DBOSHook, context: Context) -> list[str]:
        """Return the ids that the deferred task did not store, or that no triggerer returned."""
        order = self.order(context)
        if self._has_items:
            return order.item_ids(hook, self._items())
        task = context["ti"]
        other = task.xcom_pull(task_ids=task.task_id, key=_OTHER, map_indexes=task.map_index)
        return [other or find_latest(hook, order)]

    def _items(self) -> list[Any]:
        if isinstance(self.items, (str, bytes, dict)) or self.items is None:
            fail(f"items must be a list, not {self.items!r}. Set render_template_as_native_obj in the DAG.")
        found = list(self.items)
        for place, item in enumerate(found):
            if item is None or (isinstance(item, str) and is_nothing(item)):
                fail(f"Item {place + 1} of {len(found)} is {item!r}, which is nothing.")
        return found

    def _defer(self, context: Context, order: Order, ids: list[str]) -> NoReturn:
        from airflow_provider_lakets.dbos.trigger import DBOSWorkflowTrigger

        to_start = None if self.start_timeout is None else self.start_timeout + (self.delay or 0)
        # A trigger must not store thousands of ids; their prefix is enough.
        which: dict[str, Any] = {"workflow_ids": ids}
        if self._has_items:
            which = {"prefix": f"{order.workflow_id}/", "count": len(ids)}
        if not self._running:
            context["ti"].xcom_push(key=_OTHER, value=ids[0])
        trigger = partial(
            DBOSWorkflowTrigger,
            **which,
            start_deadline=None if to_start is None else deadline(to_start),
            poll_interval=self.poll_interval,
            stop_on_kill=self.cancel_on_kill and bool(self._running),
            stop_children=self.cancel_children,
            lakebase_conn_id=self.lakebase_conn_id,
            dbos_schema=self.dbos_schema,
            application=self.application,
        )
        given = {} if self._has_items else {"workflow_ids": ids}
        self.defer_for(context, trigger, self.end_timeout, **given)

    def _wait_here(self, hook: DBOSHook, ids: list[str]) -> None:
        from airflow_provider_lakets.dbos.workflows.outcomes import WAITING

        begun = time.monotonic()
        to_start = None if self.start_timeout is None else self.start_timeout + (self.delay or 0)
        found: Mapping[str, Any] = {}
        while True:
            try:
                found = hook.statuses(ids)
            except (LakebaseConnectionError, LakeTSContendedError) as err:
                self.log.warning("%s Checking again later.", err)
            else:
                if all(one.status not in ("PENDING", *WAITING) for one in found.values()):
                    return
            passed = time.monotonic() - begun
            waits = bool(found) and all(one.status in WAITING for one in found.values())
            if passed > self.end_timeout or (waits and to_start is not None and passed > to_start):
                return
            time.sleep(self.poll_interval)

    def _all_ended(self, hook: DBOSHook, ids: list[str]) -> bool:
        from airflow_provider_lakets.dbos.workflows.outcomes import has_ended

        found = hook.statuses(ids)
        return len(found) == len(ids) and all(has_ended(one) for one in found.values())

    def _finish(self, hook: DBOSHook, ids: list[str]) -> Any:
        """Return the results; fail the task if a workflow has not ended with success."""
        from airflow_provider_lakets.dbos.workflows.control import mark
        from airflow_provider_lakets.dbos.workflows.ids import REPORTED
        from airflow_provider_lakets.dbos.workflows.late import explain_delay
        from airflow_provider_lakets.dbos.workflows.outcomes import SUCCESS, explain, has_ended, read_results

        found = hook.statuses(ids)
        if missing := [one for one in ids if one not in found]:
            fail(f"{len(missing)} DBOS workflow(s) no longer exist, such as {missing[0]}.")
        late = explain_delay(hook, ids, found, start_seconds=self.start_timeout, end_seconds=self.end_timeout)
        if late:
            raise wrapped(DBOSWorkflowError, late)
        results = read_results(hook, [name for name in ids if found[name].status == SUCCESS])
        problems = explain(hook, found)
        if not self._has_items and has_ended(found[ids[0]]):
            mark(hook, ids[0], REPORTED)
        self._running = []
        if problems:
            self._raise_problems(problems, len(ids))
        return [results[name] for name in ids] if self._has_items else results[ids[0]]

    def _raise_problems(self, problems: Mapping[str, str], count: int) -> NoReturn:
        lines = list(problems.values())
        if self._has_items:
            more = [f"... and {len(lines) - PROBLEMS_SHOWN} more"] if len(lines) > PROBLEMS_SHOWN else []
            lines = [f"{len(lines)} of {count} workflows failed.", *lines[:PROBLEMS_SHOWN], *more]
        message = "\n".join(lines)
        # A retry finds the same end, except that it resumes what on_kill cancelled. After on_kill
        # Airflow lets the task go on, for example if its worker is shut down.
        if self.on_terminal == "attach" and not self._was_stopped:
            fail(message)
        raise wrapped(DBOSWorkflowError, message)
