"""The results of LakeTSHook: frozen records that can become plain dicts for Airflow."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


# A chunk is named after its table and its start.
CHUNK_SUFFIX = re.compile(r"_\d{8}_\d{6}$")


def table_of(chunk: str) -> str:
    """Return the table of a chunk, which is named after it: ``schema.table_YYYYMMDD_HHMMSS``."""
    return CHUNK_SUFFIX.sub("", chunk)


def _json(value: Any) -> Any:
    """Return a value in JSON types: times as ISO 8601 text."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return value


def _joined(how: Callable[[list[Any]], Any], *values: Any) -> Any:
    """Combine the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return how(known) if known else None


@dataclass(frozen=True)
class Record:
    """Base of all results."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types for XCom."""
        return {name: _json(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class ChronoTable(Record):
    """A row of the registry of ChronoTables; ``policies`` has the types of its enabled policies."""

    id: int
    schema_name: str
    table_name: str
    time_column: str
    chunk_interval: str
    sync_enabled: bool
    shadow_table_name: str | None
    policies: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name for operators: ``schema.table``."""
        return f"{self.schema_name}.{self.table_name}"


@dataclass(frozen=True)
class Chunk(Record):
    """One chunk that is still in Lakebase."""

    chunk_name: str
    range_start: datetime
    range_end: datetime
    status: str
    row_count: int | None
    size_bytes: int | None
    created_at: datetime | None


@dataclass(frozen=True)
class TierCandidate(Record):
    """A chunk old enough to be tiered, whose shadow streams."""

    chunk_id: int
    chunk_name: str
    range_start: datetime
    range_end: datetime


@dataclass(frozen=True)
class Rollup(Record):
    """A RollUp, with the ChronoTable (if any) and the RollUps that it reads."""

    name: str
    depends_on: list[str]
    bucket_interval: str
    refresh_lag: str | None
    watermark: datetime | None
    last_refreshed_at: datetime | None
    source: str | None = None


@dataclass(frozen=True)
class JobResult(Record):
    """
    The result of a job for one table, chunk or RollUp, which is called ``name``.

    ``outcome`` is specific to the job, or ``contended`` (a lock was not granted in time),
    ``failed``, or ``skipped`` (because of another failure). Then ``detail`` has the reason, and
    ``retryable`` says whether a retry can help.
    """

    name: str
    outcome: str
    detail: str | None = None
    retryable: bool = True

    problems: ClassVar[frozenset[str]] = frozenset({"contended", "failed", "skipped"})

    @property
    def ok(self) -> bool:
        """Whether the outcome is good; deferred work is not a failure."""
        return self.outcome not in self.problems

    @property
    def relation(self) -> str:
        """The ChronoTable or RollUp of this result."""
        return self.name

    @classmethod
    def restored(cls, plain: dict[str, Any]) -> Self:
        """Recreate a result from its plain form, which another version may have stored."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in plain.items() if name in known})


@dataclass(frozen=True)
class PartitionResult(JobResult):
    """One ChronoTable: ``created`` or ``unchanged``, and the names of its new chunks."""

    created: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TierResult(JobResult):
    """One chunk: ``tiered`` (``new`` if by this run), or ``deferred`` (reason in ``detail``)."""

    new: bool = False

    @property
    def relation(self) -> str:
        """The ChronoTable of the chunk."""
        return table_of(self.name)


@dataclass(frozen=True)
class DeferredChunk(Record):
    """A chunk past its retention that is still in Lakebase, and why."""

    chunk: str
    reason: str


@dataclass(frozen=True)
class PastChunk(Record):
    """A chunk past its retention that is still in Lakebase: due now, or kept for a reason."""

    chunk: str
    reason: str | None

    @property
    def due(self) -> bool:
        """Whether retention would drop it now."""
        return self.reason is None


@dataclass(frozen=True)
class RetentionResult(JobResult):
    """
    One ChronoTable: ``dropped``, ``deferred`` (all due chunks stay), ``trimmed`` or ``unchanged``.

    ``trimmed`` counts the rows removed from the shadow, of chunks dropped by this or an earlier
    run. ``bytes`` is the size of the dropped chunks, if known; ``range_start`` and ``range_end``
    are their range.
    """

    dropped: list[str] = field(default_factory=list)
    deferred: list[DeferredChunk] = field(default_factory=list)
    trimmed: int = 0
    bytes: int | None = None
    range_start: datetime | None = None
    range_end: datetime | None = None

    @classmethod
    def restored(cls, plain: dict[str, Any]) -> Self:
        """Recreate a result from its plain form, which another version may have stored."""
        instants = {
            name: datetime.fromisoformat(plain[name])
            for name in ("range_start", "range_end")
            if plain.get(name)
        }
        deferred = [DeferredChunk(**one) for one in plain["deferred"]]
        return super().restored({**plain, **instants, "deferred": deferred})

    def after(self, earlier: RetentionResult) -> RetentionResult:
        """Return this result, merged with an earlier one of the same table."""
        return replace(
            self,
            outcome="dropped" if earlier.dropped and self.ok else self.outcome,
            dropped=[*earlier.dropped, *self.dropped],
            trimmed=earlier.trimmed + self.trimmed,
            bytes=_joined(sum, earlier.bytes, self.bytes),
            range_start=_joined(min, earlier.range_start, self.range_start),
            range_end=_joined(max, earlier.range_end, self.range_end),
        )


@dataclass(frozen=True)
class RefreshResult(JobResult):
    """
    One RollUp: ``refreshed``, ``unchanged`` (see ``detail``) or ``skipped`` (a source failed).

    ``rows`` counts the rows written, ``removed`` those removed or replaced; None if unknown.
    ``changed`` says whether the content may differ from before the run.
    """

    ms: int = 0
    rows: int | None = None
    removed: int | None = None
    changed: bool = False


@dataclass(frozen=True)
class JobRun(Record):
    """
    The result of a job for one ChronoTable or RollUp; ``relation`` is None if none was due.

    ``outcome`` is the worst outcome, ``counts`` has the number of each, ``bytes`` is the reclaimed
    space, and ``runner`` the name of the session: DAG, task and run.
    """

    run_id: int
    job: str
    relation: str | None
    started_at: datetime
    seconds: float
    outcome: str
    counts: dict[str, int]
    bytes: int | None
    runner: str | None
    detail: str | None


@dataclass(frozen=True)
class PlanResult(JobResult):
    """
    The result of a dry run for one item: ``planned``, ``deferred`` or ``unchanged``.

    ``planned`` names the chunks that would be created, flagged or dropped, ``deferred`` those that
    would stay. Nothing was changed.
    """

    planned: list[str] = field(default_factory=list)
    deferred: list[DeferredChunk] = field(default_factory=list)
    dry_run: bool = True


@dataclass(frozen=True)
class InstallResult(Record):
    """
    The LakeTS version before an install (None if there was none) and after it.

    :param notes: Texts about what the install changed and what is left to do.
    """

    before: str | None
    after: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FeedStatus(Record):
    """The progress of tiering and the change feed for one ChronoTable."""

    table: str
    after: str | None
    active_chunks: int
    tiered_chunks: int
    pending_chunks: int
    reclaimable_bytes: int
    reclaimed_bytes: int
    cdf_status: str
    cdf_lag_bytes: int | None
    caught_up: bool | None
    last_run_at: datetime | None


@dataclass(frozen=True)
class ChunkHealth(Record):
    """The number of chunks of one ChronoTable by state."""

    chronotable: str
    total: int
    active: int
    tiered: int
    dropped: int
    oldest_active: datetime | None
    newest_active: datetime | None


@dataclass(frozen=True)
class Metric(Record):
    """One value of ``lakets_metrics()``."""

    metric_name: str
    metric_value: float | None
    labels: dict[str, Any]


@dataclass(frozen=True)
class Status(Record):
    """Everything `lakets status` shows; ``busy`` names tables that another session has locked."""

    version: str | None
    tables: list[ChronoTable]
    health: list[ChunkHealth]
    feeds: list[FeedStatus]
    rollups: list[Rollup]
    busy: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LastValueCache(Record):
    """A last value cache; ``enabled`` is false if nothing maintains it, so it is out of date."""

    chronotable: str
    cache_table: str
    cached_series: int | None
    key_columns: str
    value_columns: str
    enabled: bool


@dataclass(frozen=True)
class Cardinality(Record):
    """The number of distinct values of a text column."""

    column_name: str
    distinct_values: int
    total_rows: int
    pct_of_rows: float


@dataclass(frozen=True)
class CardinalityCheck(Record):
    """The number of series of a table, rated ``OK``, ``WARNING`` or ``CRITICAL``."""

    status: str
    combined_cardinality: int
    max_allowed: int
    tag_columns: str


@dataclass(frozen=True)
class Alert(Record):
    """One row of an alert's query."""

    alert_name: str
    severity: str
    fired_at: datetime
    alert_data: dict[str, Any]


@dataclass(frozen=True)
class SilentSeries(Record):
    """A series whose newest row is too old; ``silent_for`` is an interval as Postgres prints it."""

    alert_name: str
    severity: str
    fired_at: datetime
    dead_key: str | None
    last_seen: datetime
    silent_for: str | None


@dataclass(frozen=True)
class QueryStats(Record):
    """The total cost of all calls of one statement."""

    query: str
    calls: int
    total_time_ms: float
    mean_time_ms: float
    rows_returned: int
