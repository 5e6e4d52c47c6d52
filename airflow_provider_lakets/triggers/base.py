"""Shared code of the LakeTS triggers: poll, survive lost connections, and yield one event."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_lakets.triggers.watch import Waiting, Watch

REACHED, TIMED_OUT, FAILED = "reached", "timed_out", "failed"

# The task has logged in before. Airflow calls a connection undefined also if it cannot read it for
# the moment, for example while its API server or its secrets backend restarts.
LOOKUPS = 3

# The connection may be changed in Airflow, for example to another database.
HOOK_SECONDS = 15 * 60.0

LONGEST_PAUSE = 300.0  # seconds between tries while the database does not answer


class LakeTSBaseTrigger(BaseTrigger):
    """
    Base of the triggers: poll until the condition holds.

    The trigger logs in for each check, so it keeps no session and no credential in between. A
    check is idempotent and leaves nothing running: ``cleanup`` and ``on_kill`` have no remote work
    to end, and another triggerer can take over at any time. If the trigger is cancelled during a
    check, it cancels its statement.

    The event is a dict: ``status`` (reached, timed_out, failed), ``waiting`` (what was still
    missing, with the reasons), ``message`` (the error) and ``retryable``.

    :param deadline: When to give up; an absolute time, so that a restart of the triggerer does not
        change it.
    :param poll_interval: Seconds between two checks.
    :param lakebase_conn_id: The connection of type ``lakebase``.
    :param retired: Arguments stored by another version of this provider: a trigger may outlive an
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
            self.log.debug("%s ignores the arguments %s", type(self).__name__, ", ".join(retired))

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments of the subclass."""
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

        # In a thread, because the imports take a second and must not block other triggers.
        make_hook = sync_to_async(self._make_hook, thread_sensitive=False)
        hook, until = await make_hook(), time.monotonic() + HOOK_SECONDS
        waiting: Waiting = {}
        failures, message = 0, None
        while True:
            if time.monotonic() >= until:
                hook, until = await make_hook(), time.monotonic() + HOOK_SECONDS
            try:
                before, waiting = waiting, await self._look(hook)
                failures, message = 0, None
            except Exception as err:
                if not _is_transient(err, failures):
                    yield self._failed(err)
                    return
                failures, message = failures + 1, str(err)
                self.log.warning("%s Checking again (try %d).", message, failures + 1)
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
        """Return the hook for the checks of a while; called in a thread, and logs in to nothing."""
        raise NotImplementedError

    async def _look(self, hook: Any) -> Waiting:
        """Check once, and return what is still missing."""
        raise NotImplementedError

    def _pause(self, failures: int) -> float:
        """Return the interval, or growing pauses while the database does not answer."""
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
    """Base of the triggers that check LakeTS."""

    def watch(self) -> Watch:
        """Return the questions of one check."""
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


def _is_transient(error: Exception, failures: int) -> bool:
    """Return whether the next try may succeed, after so many failures."""
    from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]

    from airflow_provider_lakets.exceptions import LakebaseConnectionError, LakeTSContendedError
    from airflow_provider_lakets.login.who.stored import NOT_DEFINED

    # The cause, if it is the Databricks connection that the connection names.
    if isinstance(error, AirflowNotFoundException) or isinstance(error.__cause__, NOT_DEFINED):
        return failures + 1 < LOOKUPS
    return isinstance(error, (LakebaseConnectionError, LakeTSContendedError))


def listed(waiting: Waiting) -> str:
    """Return at most five missing items and their reasons in one line."""
    shown = [f"{name}: {reason}" for name, reason in list(waiting.items())[:5]]
    more = [f"and {len(waiting) - 5} more"] if len(waiting) > 5 else []
    return "; ".join([*shown, *more])
