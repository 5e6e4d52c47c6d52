"""
One query per connection for all workflows that the triggers of a process wait for.

Triggers that poll at about the same time share a query. No session is kept between two polls.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.triggers.base import HOOK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_lakets.dbos.hook import DBOSHook

    Key = tuple[str, str, str | None]

GATHER_SECONDS = 0.2

# Longer than the statement timeout. A connection whose server is gone may stay open without answer.
ANSWER_SECONDS = 6 * 60.0

Statuses = dict[str, str]

_pollers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Key, Poller]] = (
    weakref.WeakKeyDictionary()
)


class Poller:
    """
    Ask for the statuses of workflows.

    :param make_hook: Returns the hook, which is kept for a while; its sessions are not.
    """

    def __init__(self, make_hook: Callable[[], DBOSHook]) -> None:
        self._make_hook = make_hook
        self._hook: DBOSHook | None = None
        self._until = 0.0
        self._in_use: weakref.WeakSet[DBOSHook] = weakref.WeakSet()  # an earlier hook may be waiting
        self._asking: list[tuple[frozenset[str], str | None, asyncio.Future[Statuses]]] = []
        self._task: asyncio.Task[None] | None = None

    async def look(self, workflow_ids: Iterable[str], prefix: str | None = None) -> Statuses:
        """
        Return the statuses of workflows by id; missing workflows are omitted.

        :param workflow_ids: Their ids.
        :param prefix: The prefix of more ids; of these, only active workflows are returned.
        """
        answer: asyncio.Future[Statuses] = asyncio.get_running_loop().create_future()
        self._asking.append((frozenset(workflow_ids), prefix, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._answer_soon())
        return await answer

    async def _answer_soon(self) -> None:
        from asgiref.sync import sync_to_async

        await asyncio.sleep(GATHER_SECONDS)
        asking, self._asking, self._task = self._asking, [], None
        asking = [one for one in asking if not one[2].done()]  # triggers that were cancelled meanwhile
        ids = sorted(set().union(*(one[0] for one in asking)))
        prefixes = sorted({one[1] for one in asking if one[1]})
        timer = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._hang_up)
        try:
            # A blocking call in a thread; the asynchronous calls of DBOS do the same.
            found = await sync_to_async(self._ask, thread_sensitive=False)(ids, prefixes)
        except BaseException as err:
            for *_, answer in asking:
                if not answer.done():
                    answer.set_exception(err)
            if not isinstance(err, Exception):
                raise
            return
        finally:
            timer.cancel()
        for wanted, prefix, answer in asking:
            if not answer.done():
                answer.set_result(
                    {
                        name: status
                        for name, status in found.items()
                        if name in wanted or (prefix and name.startswith(prefix))
                    }
                )

    def _hang_up(self) -> None:
        for hook in list(self._in_use):
            hook.hang_up()

    def _ask(self, ids: list[str], prefixes: list[str]) -> Statuses:
        from airflow_provider_lakets.dbos.workflows.outcomes import ACTIVE

        if self._hook is None or time.monotonic() >= self._until:
            self._hook, self._until = self._make_hook(), time.monotonic() + HOOK_SECONDS
            self._in_use.add(self._hook)
        hook = self._hook
        found = {name: one.status for name, one in hook.statuses(ids).items()} if ids else {}
        if prefixes:
            with hook.doing("Looking up the active workflows of tasks") as client:
                active = client.list_workflows(
                    workflow_id_prefix=prefixes, status=[*ACTIVE], load_input=False, load_output=False
                )
            found.update({one.workflow_id: one.status for one in active})
        return {name: str(status) for name, status in found.items()}


def poller_of(conn_id: str, schema: str, application: str | None) -> Poller:
    """Return the poller of a connection, which all triggers of the event loop share."""

    def make_hook() -> Any:
        from airflow_provider_lakets.dbos.hook import DBOSHook

        return DBOSHook(
            conn_id,
            dbos_schema=schema,
            application=application,
            pooled=False,
            application_name="airflow-triggerer/dbos",
            statement_timeout="5min",
        )

    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    return pollers.setdefault((conn_id, schema, application), Poller(make_hook))
