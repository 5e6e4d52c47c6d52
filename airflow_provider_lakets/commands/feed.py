"""Check whether the change feed reaches Unity Catalog, and if not, where it stops."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_lakets.commands.findings import Finding
from airflow_provider_lakets.commands.standing import summed_up
from airflow_provider_lakets.hooks.functions.rows import natural
from airflow_provider_lakets.monitoring.finding import Attention, named
from airflow_provider_lakets.monitoring.of_slots import of_slots
from airflow_provider_lakets.monitoring.words import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_lakets.commands.standing import Standing
    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.monitoring.data import Table

POLL_SECONDS = 0.5

POSITIONS = """
SELECT shadow, lakets._cdf_committed_lsn(shadow)::text AS lsn FROM unnest(%(shadows)s::text[]) AS shadow
"""


class FeedCheck:
    """
    Check the feed of every synced table.

    :param hook: The hook, in a session.
    :param standing: The problems that the page and `lakets status` show.
    :param wait: Seconds to wait for a lagging feed to advance; it flushes about every 15 s.
    """

    def __init__(self, hook: LakeTSHook, standing: Standing, *, wait: float) -> None:
        self._hook = hook
        self._standing = standing
        self._seconds = wait

    def examine(self) -> Finding:
        """Report which tables stream and catch up, and which do not, and why."""
        synced = [table for table in self._standing.snapshot.tables if table.sync_enabled]
        if not synced:
            return Finding("", "ok", "no table is synced, so no feed is needed")
        found = self._standing.of("feed-not-streaming", "feed-starting")
        streaming = [table for table in synced if table.feed == "STREAMING"]
        still = [*self._of_still([table for table in streaming if table.lag_bytes])]
        found += [*still, *of_slots(self._standing.snapshot.troubles.slots, stands_still=bool(still))]
        said_of = {one.subject for one in found}
        empty = [table for table in synced if table not in streaming and table.name not in said_of]
        fine = [f"{_names(streaming)} STREAMING"] if streaming else []
        fine += [f"{_names(empty)}: no rows so far; the feed streams from the first row on"] if empty else []
        if not found:
            details = [f"{table.name}: {table.feed}" for table in synced]
            return Finding("", "ok", "; ".join(fine), details=details)
        summed = summed_up(found)
        return replace(summed, said="; ".join([summed.said, *fine]))

    def _of_still(self, late: list[Table]) -> Iterator[Attention]:
        """Wait for the feed of lagging tables; a working feed advances within seconds."""
        shadows = {table.shadow_table_name: table for table in late if table.shadow_table_name}
        if not shadows:
            return
        before = self._positions(shadows)
        waited = _wait(
            self._seconds, lambda: all(now != before[one] for one, now in self._positions(shadows).items())
        )
        after = self._positions(shadows)
        still = [table for shadow, table in shadows.items() if after[shadow] == before[shadow]]
        advice = "The feed stands still: check in the workspace what it waits for. Until it moves, nothing "
        advice += "new is tiered or dropped."
        for table in still:
            said = f"{size(table.lag_bytes)} behind, and not moved within {waited:.0f} s"
            yield Attention(table.name, said, advice, "feed-stands-still")

    def _positions(self, shadows: Iterable[str]) -> dict[str, str | None]:
        rows = self._hook.query(
            POSITIONS, {"shadows": [*shadows]}, doing="Reading the position of the change feed"
        )
        return {row["shadow"]: row["lsn"] for row in rows}


def _names(tables: Iterable[Table]) -> str:
    return named("table", sorted((table.name for table in tables), key=natural))


def _wait(seconds: float, is_over: Callable[[], bool]) -> float:
    """Wait until a condition is met or the time is over; return the seconds that it took."""
    started = time.monotonic()
    while not is_over() and (left := started + seconds - time.monotonic()) > 0:
        time.sleep(min(POLL_SECONDS, left))
    return time.monotonic() - started
