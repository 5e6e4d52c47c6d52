"""The options of ready-made jobs, checked when the DAG is parsed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

# In the order to run them: chunks can be dropped once they are rolled up and tiered.
JOBS = ("partition_manager", "rollup_refresh", "tiering", "retention")

RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": True,
}

_ID = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class JobOptions:
    """
    The options of all jobs; None means the value of ``default_args`` or of the operators.

    :param lakebase_conn_id: The connection of type ``lakebase``.
    :param tables: ChronoTables as ``schema.table``; None means all.
    :param rollup: Only this RollUp and those it reads; None means all.
    :param batch_size: How many chunks one mapped tiering task flags.
    :param max_batches: The largest number of mapped tiering or retention tasks in one run.
    :param parallelism: How many RollUps to refresh at a time.
    :param max_active_tis: How many mapped tasks of one job run at a time.
    :param deferrable: Whether tiering and retention wait in the triggerer for the change feed.
    :param dry_run: Report what would happen, and change nothing.
    :param force: Whether retention, after approval, also drops chunks that are not proved durable.
    """

    lakebase_conn_id: str | None = None
    tables: Sequence[str] | str | None = None
    rollup: str | None = None
    batch_size: int = 20
    max_batches: int = 100
    parallelism: int = 4
    max_active_tis: int = 4
    deferrable: bool | None = None
    dry_run: bool | str | None = None
    force: bool | str | None = None
    range_start: str | None = None
    range_end: str | None = None

    def given(self, *names: str) -> dict[str, Any]:
        """Return those of the named options that are set, by name."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def __post_init__(self) -> None:
        if self.lakebase_conn_id is not None:
            check_id("lakebase_conn_id", self.lakebase_conn_id)
        for name in ("batch_size", "max_batches", "parallelism", "max_active_tis"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of 1 or more, not {value!r}")
        check_tables(self.tables)


def check_id(what: str, value: object) -> None:
    """Refuse a value that is not a valid id in Airflow."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ValueError(f"{what} must be letters, digits, '_', '-' and '.', not {value!r}")


def check_tables(tables: object) -> None:
    """Refuse values that cannot name ChronoTables; a template is checked at run time instead."""
    if tables is None or (isinstance(tables, str) and "{{" in tables):
        return
    if isinstance(tables, str) or not isinstance(tables, (list, tuple)) or not tables:
        raise ValueError(f"tables must be a list such as ['public.metrics'], or None for all, not {tables!r}")
    wrong = [table for table in tables if not isinstance(table, str) or not table.strip()]
    if wrong:
        raise ValueError(f"tables must be names such as 'public.metrics', not {wrong[0]!r}")


def check_jobs(jobs: Collection[str], what: str = "jobs") -> tuple[str, ...]:
    """Return the jobs in their order; refuse unknown jobs and an empty selection."""
    chosen = [jobs] if isinstance(jobs, str) else list(jobs)
    unknown = [job for job in chosen if job not in JOBS]
    if unknown or not chosen:
        found = f"{unknown[0]!r}" if unknown else "none"
        raise ValueError(f"{what} must be some of {', '.join(JOBS)}; found {found}")
    return tuple(job for job in JOBS if job in chosen)


def check_pool(pool: object) -> None:
    """Refuse a value that is not the name of a pool."""
    if not isinstance(pool, str) or not pool.strip():
        raise ValueError(f"pool must be the name of a pool, not {pool!r}")


def check_unknown(given: Iterable[str], known: Iterable[str], of: str) -> None:
    """Refuse options that do not exist, and name those that do."""
    known = list(known)
    for name in given:
        if name not in known:
            raise ValueError(f"{of} has no option {name!r}; it has {', '.join(known)}")
