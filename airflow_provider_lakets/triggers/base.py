"""Shared code of the LakeTS triggers: poll, survive lost connections, and yield one event."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_lakets.triggers.watch import Waiting, Watch

REACHED, TIMED_OUT, FAILED = "reached", "timed_out", "failed"

LONGEST_PAUSE = 300.0  # seconds between the tries at a database that does not answer


class LakeTSBaseTrigger(BaseTrigger):
    """
    Base of the triggers: ask at intervals until nothing has to be waited for.

    Each time the trigger logs in anew, so no session and no credential is kept in between. Asking
    is idempotent and leaves nothing running: there is no remote work for ``cleanup`` or ``on_kill``
    to end, and another triggerer can take over at any time. A trigger that is cancelled while it
    asks cancels its statement.

    The event is a dict: ``status`` (reached, timed_out, failed), ``waiting`` (what was still waited
    for, with the reasons), ``message`` (what went wrong) and ``retryable``.

    :param deadline: When to give up; an instant, so that a restart of the triggerer does not move
        it.
    :param poll_interval: Seconds between two questions.
    :param lakebase_conn_id: The connection of type ``lakebase``.
    :param retired: Arguments that another version of this provider stored: a trigger outlives an
        upgrade.
    """

    def __init__(
        self,
        *,
        deadline: datetime,
        poll_interval: float = 30.0,
        lakebase_conn_id: str = "lakebase_default",
        **retired: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.lakebase_conn_id = lakebase_conn_id
        if retired:
            self.log.debug("%s takes no %s", type(self).__name__, ", ".join(retired))

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor that are the subclass's own."""
        raise NotImplementedError

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and all arguments of its constructor."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            **self.arguments(),
            "deadline": self.deadline,
            "poll_interval": self.poll_interval,
            "lakebase_conn_id": self.lakebase_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the wait is over, the deadline has passed, or an error is final."""
        from asgiref.sync import sync_to_async

        # In a thread: its imports take a second, and other triggers should run meanwhile.
        hook = await sync_to_async(self._make_hook, thread_sensitive=False)()
        waiting: Waiting = {}
        failures, message = 0, None
        while True:
            try:
                before, waiting = waiting, await self._look(hook)
                failures, message = 0, None
            except Exception as err:
                if not _passes(err):
                    yield self._failed(err)
                    return
                failures, message = failures + 1, str(err)
                self.log.warning("%s Looking again (try %d).", message, failures + 1)
            else:
                if not waiting:
                    yield _event(REACHED)
                    return
                if waiting != before:
                    self.log.info("Waiting for %s", listed(waiting))
            left = (self._give_up_at() - datetime.now(timezone.utc)).total_seconds()
            if left <= 0:
                yield _event(TIMED_OUT, waiting=waiting, message=message)
                return
            await asyncio.sleep(min(left, self._pause(failures)))

    def _give_up_at(self) -> datetime:
        return self.deadline

    def _make_hook(self) -> Any:
        """Return what a look needs; made once, in a thread."""
        raise NotImplementedError

    async def _look(self, hook: Any) -> Waiting:
        """Return what still has to be waited for."""
        raise NotImplementedError

    def _pause(self, failures: int) -> float:
        """Return the pause: the interval, or growing pauses while the database does not answer."""
        longest = max(LONGEST_PAUSE, self.poll_interval)
        return min(self.poll_interval * 2.0 ** min(failures, 16), longest)

    def _failed(self, error: Exception) -> TriggerEvent:
        from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]

        from airflow_provider_lakets.exceptions import PERMANENT, LakeTSError

        if not isinstance(error, (LakeTSError, AirflowNotFoundException)):
            raise error
        retryable = not isinstance(error, (AirflowNotFoundException, *PERMANENT))
        return _event(FAILED, message=str(error), retryable=retryable)


class LakeTSWatchTrigger(LakeTSBaseTrigger):
    """Base of the triggers that ask LakeTS."""

    def watch(self) -> Watch:
        """Return the questions to ask in one look."""
        raise NotImplementedError

    def _make_hook(self) -> Any:
        from airflow_provider_lakets.hooks.lakets import LakeTSHook
        from airflow_provider_lakets.login.settings import application_name

        task = self.task_instance
        names = {
            f"AIRFLOW_CTX_{variable}": str(getattr(task, name, None) or "")
            for variable, name in (("DAG_ID", "dag_id"), ("TASK_ID", "task_id"), ("DAG_RUN_ID", "run_id"))
        }
        return LakeTSHook(
            self.lakebase_conn_id,
            application_name=application_name(names),
            statement_timeout="5min",
            lock_timeout="2s",
        )

    async def _look(self, hook: Any) -> Waiting:
        from airflow_provider_lakets.triggers.watch import alook

        return await alook(hook, self.watch())


def _event(status: str, **more: Any) -> TriggerEvent:
    return TriggerEvent({"status": status, **more})  # type: ignore[no-untyped-call]


def _passes(error: Exception) -> bool:
    """Return whether the next try may succeed."""
    from airflow_provider_lakets.exceptions import LakebaseConnectionError, LakeTSContendedError

    return isinstance(error, (LakebaseConnectionError, LakeTSContendedError))


def listed(waiting: Waiting) -> str:
    """Return what is waited for and why, in one line; at most five things."""
    shown = [f"{name}: {reason}" for name, reason in list(waiting.items())[:5]]
    more = [f"and {len(waiting) - 5} more"] if len(waiting) > 5 else []
    return "; ".join([*shown, *more])
