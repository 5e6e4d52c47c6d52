"""Whether the change feed brings what is written to Unity Catalog, and if not, where it stops."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_provider_lakets.commands.findings import Finding
from airflow_provider_lakets.monitoring.finding import named
from airflow_provider_lakets.monitoring.troubles import feed_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.hooks.results import ChronoTable, FeedStatus

POLL_SECONDS = 0.5

POSITIONS = """
SELECT shadow, lakets._cdf_committed_lsn(shadow)::text AS lsn FROM unnest(%(shadows)s::text[]) AS shadow
"""

# Anybody may read this. A feed that is not made of a replication slot has none here.
SLOTS = """
SELECT slot.slot_name, slot.active, slot.wal_status = 'lost' AS is_lost
  FROM pg_catalog.pg_replication_slots AS slot
 WHERE slot.slot_type = 'logical' AND slot.database = current_database() ORDER BY slot.slot_name
"""

START = (
    "What does not stream is neither tiered nor dropped. Start a change data feed for schema lakets_cdf, and "
    "let the role read wal2delta.tables. SKIPPED: the replica identity is not FULL."
)
UNREADABLE = (
    "What cannot be seen to stream is neither tiered nor dropped. GRANT USAGE ON SCHEMA wal2delta and GRANT "
    "SELECT ON wal2delta.tables to the role of the jobs."
)


class FeedCheck:
    """
    Looks at the feed of every synced table.

    :param hook: In a session.
    :param patience: Seconds that a feed which lags is given to move; it flushes about every 15 s.
    """

    def __init__(self, hook: LakeTSHook, *, patience: float) -> None:
        self._hook = hook
        self._patience = patience
        self._problems: list[str] = []
        self._advice: list[str] = []
        self._details: list[str] = []

    def examine(self) -> Finding:
        """Say which tables stream and catch up, and which do not, and why."""
        synced = [table for table in self._hook.chronotables() if table.sync_enabled]
        if not synced:
            return Finding("", "ok", "no table is synced, so none is needed")
        feeds, busy = self._hook.feeds(synced)
        if busy:
            self._report(named("table", busy), "locked by another session, and not looked at", "")
        by_name = {feed.table: feed for feed in feeds}
        streaming = [table for table in synced if _status(by_name.get(table.name)) == "STREAMING"]
        self._not_streaming([table for table in synced if table.name in by_name], by_name)
        self._behind(streaming, by_name)
        self._slots(any(feed.cdf_lag_bytes for feed in feeds))
        fine = [f"{named('table', [table.name for table in streaming])} STREAMING"] if streaming else []
        return Finding(
            "",
            "warn" if self._problems else "ok",
            "; ".join([*self._problems, *fine]),
            " ".join(dict.fromkeys(filter(None, self._advice))),
            details=self._details or [f"{table.name}: STREAMING" for table in streaming],
        )

    def _report(self, who: str, what: str, advice: str, details: Iterable[str] = ()) -> None:
        self._problems.append(f"{who}: {what}")
        self._details += details or [self._problems[-1]]
        self._advice.append(advice)

    def _not_streaming(self, tables: list[ChronoTable], feeds: dict[str, FeedStatus]) -> None:
        readable = feed_state(self._hook) != "unreadable"
        for state in ("SKIPPED", "NONE"):
            rows: dict[bool, list[str]] = {True: [], False: []}
            for table in tables:
                if feeds[table.name].cdf_status == state:
                    rows[self._has_rows(table)].append(table.name)
            for has_rows, names in rows.items():
                what = f"{state}, and rows do not arrive" if has_rows else f"{state}; no rows so far"
                advice = START if has_rows else "An empty table streams from its first row on."
                if state == "NONE" and not readable:
                    what, advice = f"{state}: the role may not read wal2delta.tables", UNREADABLE
                if names:
                    self._report(named("table", names), what, advice, [f"{name}: {what}" for name in names])

    def _has_rows(self, table: ChronoTable) -> bool:
        if table.shadow_table_name is None:
            return True  # what is written goes nowhere
        from psycopg import sql

        query = sql.SQL("SELECT EXISTS (SELECT FROM {}) AS found").format(
            sql.Identifier("lakets_cdf", table.shadow_table_name)
        )
        return bool(self._hook.query(query, doing=f"Looking into the mirror of {table.name}")[0]["found"])

    def _behind(self, tables: list[ChronoTable], feeds: dict[str, FeedStatus]) -> None:
        """Wait for the feed of tables that it is behind of: one that works moves within seconds."""
        late = {
            table.shadow_table_name: table.name
            for table in tables
            if table.shadow_table_name and feeds[table.name].cdf_lag_bytes
        }
        if not late:
            return
        before = self._positions(late)
        waited = _wait(self._patience, lambda: all(self._positions(late)[one] != before[one] for one in late))
        after = self._positions(late)
        still = [name for shadow, name in late.items() if after[shadow] == before[shadow]]
        lag = {name: feeds[name].cdf_lag_bytes or 0 for name in late.values()}
        if still:
            what = f"{_size(max(lag[name] for name in still))} behind, and not moved within {waited:.0f} s"
            self._report(
                named("table", still),
                what,
                "The feed stands still: see in the workspace what it waits for. Until it moves, nothing new "
                "is tiered or dropped.",
                [f"{name}: {lag[name]} bytes behind, and not moved within {waited:.0f} s" for name in still],
            )

    def _positions(self, shadows: Iterable[str]) -> dict[str, str | None]:
        rows = self._hook.query(
            POSITIONS, {"shadows": [*shadows]}, doing="Looking where the change feed stands"
        )
        return {row["shadow"]: row["lsn"] for row in rows}

    def _slots(self, is_behind: bool) -> None:
        for slot in self._hook.query(SLOTS, doing="Looking at the replication slots"):
            who = f"replication slot {slot['slot_name']}"
            if slot["is_lost"]:
                self._report(
                    who, "lost its WAL", "Make the change data feed anew: it begins with a snapshot."
                )
            elif is_behind and not slot["active"]:
                self._report(who, "nobody reads it", "The change data feed does not run: start it again.")


def _status(feed: FeedStatus | None) -> str | None:
    return feed.cdf_status if feed else None


def _wait(seconds: float, is_over: Callable[[], bool]) -> float:
    """Wait until something is so, but not longer than some seconds; return how long it took."""
    started = time.monotonic()
    while not is_over() and (left := started + seconds - time.monotonic()) > 0:
        time.sleep(min(POLL_SECONDS, left))
    return time.monotonic() - started


def _size(count: int) -> str:
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"
