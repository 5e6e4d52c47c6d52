"""Wait until workflows have ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.triggers.base import LakeTSBaseTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow_provider_lakets.dbos.poller import Poller
    from airflow_provider_lakets.triggers.watch import Waiting

_NOT_THERE = "NOT THERE"


class DBOSWorkflowTrigger(LakeTSBaseTrigger):
    """
    Fire when all workflows have ended, successfully or not; their results are not read.

    The triggers of a connection poll at the same time with one query.

    :param workflow_ids: The ids of the workflows; missing ones are waited for.
    :param prefix: The prefix of more ids, instead of a long list.
    :param count: How many workflows have the prefix.
    :param start_deadline: When to give up if none has started, before ``deadline``.
    :param stop_on_kill: Whether to cancel them when a user stops, clears or marks the deferred
        task.
    :param stop_children: Whether to also cancel their children.
    """

    def __init__(
        self,
        *,
        workflow_ids: Sequence[str] = (),
        prefix: str | None = None,
        count: int = 0,
        start_deadline: datetime | None = None,
        stop_on_kill: bool = False,
        stop_children: bool = False,
        dbos_schema: str = "dbos",
        application: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_ids = list(workflow_ids)
        self.prefix = prefix
        self.count = count
        self.start_deadline = start_deadline
        self.stop_on_kill = stop_on_kill
        self.stop_children = stop_children
        self.dbos_schema = dbos_schema
        self.application = application
        self._has_started = False

    def arguments(self) -> dict[str, Any]:
        """Return which workflows, and what to do about them."""
        return {
            "workflow_ids": self.workflow_ids,
            "prefix": self.prefix,
            "count": self.count,
            "start_deadline": self.start_deadline,
            "stop_on_kill": self.stop_on_kill,
            "stop_children": self.stop_children,
            "dbos_schema": self.dbos_schema,
            "application": self.application,
        }

    async def on_kill(self) -> None:
        """Cancel the workflows if a user stops, clears or marks the task (from Airflow 3.3 on)."""
        from asgiref.sync import sync_to_async

        if self.stop_on_kill:
            await sync_to_async(self._stop, thread_sensitive=False)()

    def _make_hook(self) -> None:
        """Prepare nothing: the poller has the hook."""

    async def _look(self, hook: object) -> Waiting:
        from airflow_provider_lakets.dbos.workflows.outcomes import ACTIVE, WAITING

        found = await self._poller().look(self.workflow_ids, self.prefix)
        waiting = {name: found.get(name, _NOT_THERE) for name in self.workflow_ids}
        waiting.update(found)
        self._has_started |= any(status not in (*WAITING, _NOT_THERE) for status in waiting.values())
        self._has_started |= len(found) < self.count  # of a prefix, those that have ended are not found
        return {name: status for name, status in waiting.items() if status in (*ACTIVE, _NOT_THERE)}

    def _give_up_at(self) -> datetime:
        if self._has_started or self.start_deadline is None:
            return self.deadline
        return min(self.start_deadline, self.deadline)

    def _pause(self, failures: int) -> float:
        pause = super()._pause(failures)
        # Poll at whole multiples of the pause, so that many triggers poll together.
        return pause if failures else max(pause - time.time() % pause, 0.05)

    def _poller(self) -> Poller:
        from airflow_provider_lakets.dbos.poller import poller_of

        return poller_of(self.lakebase_conn_id, self.dbos_schema, self.application)

    def _stop(self) -> None:
        from airflow_provider_lakets.dbos.hook import DBOSHook
        from airflow_provider_lakets.dbos.workflows.control import stop

        hook = DBOSHook(
            self.lakebase_conn_id, dbos_schema=self.dbos_schema, application=self.application, pooled=False
        )
        stop(hook, self.workflow_ids, prefix=self.prefix, children=self.stop_children)
