"""Read the problems of one Lakebase with a few statements, whatever the number of tables."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_lakets.exceptions import LakeTSContendedError, LakeTSError, LakeTSPrivilegeError
from airflow_provider_lakets.monitoring.of_slots import SLOTS, Slot

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_lakets.hooks.lakets import LakeTSHook

log = logging.getLogger(__name__)

COUNTED_TABLES = 12
COUNTED_ROWS = 1000

# These queries read the catalog, because a role cannot look up a name in a schema that it may not
# use.

# The newest outcome of each job and relation, and in how many consecutive runs it occurred. A job
# logs each batch of chunks: entries of one runner within a minute belong to one run. A job with
# nothing to do logs one entry for all relations, which ends all earlier problems.
STREAKS = """
WITH noted AS (
    SELECT run.*, run.started_at + least(greatest(run.seconds, 0), 1e7) * interval '1 second' AS ended_at
      FROM lakets._job_run AS run WHERE run.relation IS NOT NULL
), run AS (
    SELECT noted.*,
           noted.runner IS DISTINCT FROM lag(noted.runner) OVER oldest_first
           OR noted.started_at > lag(noted.ended_at) OVER oldest_first + interval '1 min' AS begins,
           row_number() OVER newest_first AS place, first_value(noted.outcome) OVER newest_first AS newest
      FROM noted
    WINDOW oldest_first AS (PARTITION BY noted.job, noted.relation ORDER BY noted.run_id),
           newest_first AS (PARTITION BY noted.job, noted.relation ORDER BY noted.run_id DESC)
), numbered AS (
    SELECT run.*, count(*) FILTER (WHERE run.begins) OVER (of_one ORDER BY run.run_id) AS number,
           min(run.place) FILTER (WHERE run.outcome <> run.newest) OVER of_one AS broken
      FROM run
    WINDOW of_one AS (PARTITION BY run.job, run.relation)
), streak AS (
    SELECT numbered.job, numbered.relation, numbered.outcome, max(numbered.started_at) AS started_at,
           max(numbered.ended_at) AS ended_at, max(numbered.run_id) AS run_id,
           (array_agg(numbered.detail ORDER BY numbered.place))[1] AS detail,
           count(DISTINCT numbered.number) AS runs
      FROM numbered WHERE coalesce(numbered.place < numbered.broken, true)
     GROUP BY numbered.job, numbered.relation, numbered.outcome
)
SELECT streak.job, streak.relation, streak.outcome, streak.started_at, streak.ended_at, streak.detail,
       streak.runs
  FROM streak
 WHERE streak.outcome IN ('failed', 'contended', 'deferred')
   AND NOT EXISTS (SELECT FROM lakets._job_run AS idle
                    WHERE idle.job = streak.job AND idle.relation IS NULL AND idle.run_id > streak.run_id)
 ORDER BY streak.run_id DESC
"""

# Reading the size takes a lock for a moment. A partition where this would have to wait is left out.
STRAYS = """
SELECT reg.id, nsp.nspname AS schema_name, cls.relname AS table_name
  FROM lakets._chronotable_registry AS reg
  JOIN pg_catalog.pg_namespace AS home ON home.nspname = reg.schema_name
  JOIN pg_catalog.pg_class AS tab ON tab.relnamespace = home.oid AND tab.relname = reg.table_name
  JOIN pg_catalog.pg_partitioned_table AS part ON part.partrelid = tab.oid
  JOIN pg_catalog.pg_class AS cls ON cls.oid = part.partdefid
  JOIN pg_catalog.pg_namespace AS nsp ON nsp.oid = cls.relnamespace
 WHERE CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_locks AS lck
                              WHERE lck.relation = part.partdefid AND lck.mode = 'AccessExclusiveLock')
            THEN pg_catalog.pg_relation_size(part.partdefid) > 0 END
 ORDER BY reg.id
"""

# The jobs hold exclusive locks for a moment only. A transaction that is open for minutes blocks the
# jobs with any lock. A role that may not see the start of other roles' transactions finds none.
HOLDERS = """
SELECT DISTINCT ON (reg.id) reg.id, lck.pid, act.application_name AS name,
       extract(epoch FROM clock_timestamp() - act.xact_start)::float8 AS seconds
  FROM pg_catalog.pg_locks AS lck
  JOIN pg_catalog.pg_stat_activity AS act ON act.pid = lck.pid
  LEFT JOIN pg_catalog.pg_inherits AS inh ON inh.inhrelid = lck.relation
  JOIN pg_catalog.pg_class AS tab ON tab.oid = coalesce(inh.inhparent, lck.relation)
  JOIN pg_catalog.pg_namespace AS nsp ON nsp.oid = tab.relnamespace
  JOIN lakets._chronotable_registry AS reg
    ON reg.schema_name = nsp.nspname AND reg.table_name = tab.relname
 WHERE lck.locktype = 'relation' AND lck.granted AND lck.pid <> pg_backend_pid()
   AND lck.database = (SELECT db.oid FROM pg_catalog.pg_database AS db WHERE db.datname = current_database())
   AND act.xact_start < clock_timestamp()
       - CASE lck.mode WHEN 'AccessExclusiveLock' THEN interval '10 s' ELSE interval '10 min' END
 ORDER BY reg.id, act.xact_start
"""

PROBLEMS = """
SELECT reg.id, lakets._identity_problem(reg) AS problem FROM lakets._chronotable_registry AS reg
"""

FEED = """
SELECT pg_catalog.has_schema_privilege(nsp.oid, 'USAGE')
       AND pg_catalog.has_table_privilege(cls.oid, 'SELECT') AS readable,
       (SELECT pg_catalog.has_schema_privilege(mirrors.oid, 'USAGE') FROM pg_catalog.pg_namespace AS mirrors
         WHERE mirrors.nspname = 'lakets_cdf') AS sees_mirrors
  FROM pg_catalog.pg_class AS cls JOIN pg_catalog.pg_namespace AS nsp ON nsp.oid = cls.relnamespace
 WHERE nsp.nspname = 'wal2delta' AND cls.relname = 'tables'
"""


@dataclass(frozen=True)
class Streak:
    """The newest outcome of a job for a table or RollUp, and its number of consecutive runs."""

    job: str
    relation: str
    outcome: str
    started_at: datetime
    ended_at: datetime
    detail: str | None
    runs: int


@dataclass(frozen=True)
class Holder:
    """A session with a lock on a table, and for how long its transaction has been open."""

    pid: int
    name: str | None
    seconds: float


@dataclass(frozen=True)
class Repair:
    """A row of ``lakets.pending_repairs``."""

    object: str
    problem: str
    remedy: str


@dataclass
class Troubles:
    """
    The problems of a Lakebase; those of ChronoTables by the id of the table.

    :param feed: Whether the state of the feed is ``readable``, ``unreadable`` or ``absent``, or the
        mirrors are ``hidden`` from the role.
    :param strays: How many rows lie outside all chunks, as text.
    :param problems: Why the registry and a table no longer match.
    :param repairs_unknown: Why the pending repairs could not be read.
    """

    feed: str = "absent"
    streaks: list[Streak] = field(default_factory=list)
    strays: dict[int, str] = field(default_factory=dict)
    holders: dict[int, Holder] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    slots: list[Slot] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    repairs_unknown: str | None = None


def read_troubles(hook: LakeTSHook) -> Troubles:
    """
    Read the problems.

    :param hook: The hook, in a session.
    """
    found = Troubles(feed=feed_state(hook), strays=_strays(hook))
    found.slots = [Slot(**row) for row in hook.query(SLOTS, doing="Looking at the replication slots")]
    for row in hook.query(HOLDERS, doing="Looking up who holds locks on ChronoTables"):
        found.holders[row["id"]] = Holder(row["pid"], row["name"], row["seconds"])
    if hook.supports("job_history"):
        found.streaks = [Streak(**row) for row in hook.query(STREAKS, doing="Reading the job log")]
    if not hook.is_older():
        rows = hook.query(PROBLEMS, doing="Comparing the ChronoTables with their registry")
        found.problems = {row["id"]: row["problem"] for row in rows if row["problem"]}
        try:
            found.repairs = [Repair(**row) for row in hook.pending_repairs()]
        except LakeTSError as err:  # a table is locked, or there are so many that it takes too long
            found.repairs_unknown = str(err)
    return found


def feed_state(hook: LakeTSHook) -> str:
    """Return whether the state of the feed can be read, as in :class:`Troubles`."""
    rows = hook.query(FEED, doing="Looking for the state of the change feed")
    if not rows:
        return "absent"
    if not rows[0]["readable"]:
        return "unreadable"
    return "hidden" if rows[0]["sees_mirrors"] is False else "readable"


def _strays(hook: LakeTSHook) -> dict[int, str]:
    """Count the rows outside all chunks, up to a limit and only for the first tables."""
    from psycopg import sql

    found = {}
    for number, row in enumerate(hook.query(STRAYS, doing="Looking into the default partitions")):
        if number >= COUNTED_TABLES:
            found[row["id"]] = "some rows lie"
            continue
        query = sql.SQL("SELECT count(*) AS rows FROM (SELECT FROM {} LIMIT {}) AS first_rows").format(
            sql.Identifier(row["schema_name"], row["table_name"]), sql.Literal(COUNTED_ROWS + 1)
        )
        try:
            (count,) = hook.query(query, doing=f"Counting the rows of {row['table_name']}")
        except (LakeTSPrivilegeError, LakeTSContendedError) as err:
            log.info("Rows outside chunks cannot be counted: %s", err)
            found[row["id"]] = "some rows may lie"
            continue
        rows = count["rows"]
        if rows > COUNTED_ROWS:
            found[row["id"]] = f"more than {COUNTED_ROWS} rows lie"
        elif rows:
            found[row["id"]] = f"{rows} rows lie" if rows > 1 else "1 row lies"
    return found
