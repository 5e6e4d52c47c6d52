"""Read what the page shows of one Lakebase, in one session, as plain records."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.hooks.functions.rows import natural
from airflow_provider_lakets.monitoring import queries
from airflow_provider_lakets.monitoring.troubles import Troubles, read_troubles

if TYPE_CHECKING:
    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.hooks.results import JobRun

STATES = ("hot", "due", "deferred", "tiered", "changed", "dropped", "planned")
MEANINGS = {
    "hot": "in Lakebase, written to",
    "due": "old enough; the next run processes it",
    "deferred": "due, but not processed by the last run",
    "tiered": "proved in Unity Catalog, still in Lakebase",
    "changed": "changed since it was tiered; must be proved again",
    "dropped": "dropped from Lakebase; Unity Catalog has it",
    "planned": "created ahead of time, empty",
}
EXPLAINED = 12  # tables whose oldest deferred chunk is explained
HISTORY = 60


@dataclass(frozen=True)
class Run:
    """Adjacent chunks in one state: range, count, bytes if known, and name of the first."""

    state: str
    range_start: datetime
    range_end: datetime
    chunks: int
    bytes: int | None
    first_name: str


@dataclass
class Table:
    """One ChronoTable with its chunks and the change feed's state."""

    id: int
    name: str
    schema_name: str
    table_name: str
    chunk_interval: str
    sync_enabled: bool
    tier_before: datetime | None
    drop_before: datetime | None
    tier_after: str | None
    drop_after: str | None
    tiered_at: datetime | None
    retained_at: datetime | None
    runs: list[Run] = field(default_factory=list)
    feed: str = "not synced"
    lag_bytes: int | None = None
    committed_lsn: str | None = None
    mirror_has_rows: bool = True
    still_since: datetime | None = None
    lakebase_bytes: int | None = None
    why: str | None = None
    shadow_table_name: str | None = None
    chunk_seconds: float = 0.0
    tier_seconds: float | None = None
    drop_seconds: float | None = None

    def count(self, *states: str) -> int:
        """Return how many chunks are in one of the states."""
        return sum(run.chunks for run in self.runs if run.state in states)

    def state_at(self, start: datetime, otherwise: str) -> str:
        """Return the state of the chunk with this start; ``otherwise`` if it is not known yet."""
        states = (run.state for run in self.runs if run.range_start <= start < run.range_end)
        return next(states, otherwise)

    def bytes_of(self, *states: str) -> int | None:
        """Return the size of the chunks in these states, as far as recorded; None if it is not."""
        known = [run.bytes for run in self.runs if run.state in states and run.bytes is not None]
        return sum(known) if known else None


@dataclass(frozen=True)
class Rollup:
    """One RollUp; ``marks`` counts the buckets that are marked to be computed again."""

    name: str
    source: str | None
    depends_on: list[str]
    bucket_interval: str
    bucket_seconds: float
    refresh_lag: str | None
    watermark: datetime | None
    last_refreshed_at: datetime | None
    is_late: bool
    marks: int
    is_refused: bool = False


@dataclass
class Snapshot:
    """Everything that the overview shows, and when it was read."""

    at: datetime
    version: str | None
    tables: list[Table] = field(default_factory=list)
    rollups: list[Rollup] = field(default_factory=list)
    history: list[JobRun] = field(default_factory=list)
    troubles: Troubles = field(default_factory=Troubles)

    def table(self, name: str) -> Table | None:
        """Return a table by name."""
        return next((one for one in self.tables if one.name == name), None)

    def rollup(self, name: str) -> Rollup | None:
        """Return a RollUp by name."""
        return next((one for one in self.rollups if one.name == name), None)


def gather(hook: LakeTSHook, before: Snapshot | None = None) -> Snapshot:
    """
    Read a snapshot.

    :param hook: The hook of the connection.
    :param before: An earlier snapshot, to see whether a change feed advances.
    """
    with hook.session():
        version = hook.version()
        snapshot = Snapshot(datetime.now(timezone.utc), version)
        if version is None:
            return snapshot
        snapshot.tables = _tables(hook)
        rows = hook.query(queries.ROLLUPS, doing="Reading the RollUps for the page")
        snapshot.rollups = sorted((Rollup(**row) for row in rows), key=lambda rollup: natural(rollup.name))
        snapshot.history = history(hook)
        snapshot.troubles = read_troubles(hook)
    if before is not None:
        _compare_feeds(snapshot, before)
    return snapshot


def _compare_feeds(snapshot: Snapshot, before: Snapshot) -> None:
    """Record since when each lagging feed has not advanced."""
    earlier = {table.id: table for table in before.tables}
    for table in snapshot.tables:
        then = earlier.get(table.id)
        if then and table.lag_bytes and then.lag_bytes and table.committed_lsn == then.committed_lsn:
            table.still_since = then.still_since or before.at


def _tables(hook: LakeTSHook) -> list[Table]:
    older = hook.is_older()
    tables_query = queries.TABLES.format(times=queries.TIMES_OLDER if older else queries.TIMES)
    rows = hook.query(tables_query, doing="Reading the ChronoTables for the page")
    tables = {row["id"]: Table(**row) for row in sorted(rows, key=lambda row: natural(row["name"]))}
    for row in chunk_runs(hook, None):
        if table := tables.get(row.pop("table_id")):
            table.runs.append(Run(**row))
    feeds = (queries.FEEDS_OLDER if older else queries.FEEDS).format(has_rows=queries.HAS_ROWS)
    for row in hook.query(feeds, doing="Reading the change feed for the page"):
        if table := tables.get(row["id"]):
            table.feed, table.lag_bytes = row["status"], row["lag_bytes"]
            table.committed_lsn, table.mirror_has_rows = row["committed_lsn"], row["has_rows"]
    for row in hook.query(queries.SPACE, doing="Reading sizes for the page"):
        if table := tables.get(row["id"]):
            table.lakebase_bytes = row["bytes"]
    if not older:
        deferring = [table for table in tables.values() if table.count("deferred")]
        for table in deferring[:EXPLAINED]:
            table.why = _why(hook, next(run.first_name for run in table.runs if run.state == "deferred"))
    return list(tables.values())


def chunk_runs(hook: LakeTSHook, table_id: int | None) -> list[dict[str, Any]]:
    """
    Return runs of adjacent chunks in one state, by table and oldest first.

    :param hook: The hook of the connection.
    :param table_id: Only this ChronoTable; None means all.
    """
    older = hook.is_older()
    query = queries.RUNS.format(
        times=queries.TIMES_OLDER if older else queries.TIMES,
        changed=queries.CHANGED_OLDER if older else queries.CHANGED,
        is_changed=queries.IS_CHANGED_OLDER if older else queries.IS_CHANGED,
    )
    return hook.query(query, {"table": table_id}, doing="Reading the chunks for the page")


def _why(hook: LakeTSHook, chunk: str) -> str | None:
    """Return why a chunk is not proved durable, or the error of asking; None if it is."""
    try:
        reason = hook.call_value("explain_durability", p_chunk_name=chunk)
    except LakeTSError as err:
        return str(err)
    return str(reason) if reason else None


def history(hook: LakeTSHook, relation: str | None = None) -> list[JobRun]:
    """
    Return the newest entries of the job log; an empty list if the installed LakeTS has none.

    :param hook: The hook of the connection.
    :param relation: Only this table or RollUp.
    """
    if not hook.supports("job_history"):
        return []
    return hook.job_history(relation=relation, limit=HISTORY)


def chunks(hook: LakeTSHook, table: str, *, limit: int, offset: int = 0) -> list[dict[str, Any]]:
    """Return single chunks of a table, newest first."""
    return hook.query(
        queries.CHUNKS,
        {"name": table, "limit": limit, "offset": offset},
        doing=f"Reading the chunks of {table} for the page",
    )
