"""All that a LakeTS database holds, in a form that can be compared with another."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    State = dict[str, list[str]]

OURS = "!~ '^(pg_|information_schema|steps)'"

CATALOG = {
    "relations": "SELECT oid::regclass, relkind, relpersistence, relowner::regrole, relreplident, relacl,"
    " pg_get_expr(relpartbound, oid), (SELECT inhparent::regclass FROM pg_inherits WHERE inhrelid = oid)"
    f" FROM pg_class WHERE relkind NOT IN ('i', 'I') AND relnamespace::regnamespace::text {OURS}",
    "indexes": "SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index JOIN pg_class ON oid = indrelid"
    f" WHERE relnamespace::regnamespace::text {OURS}",
    "columns": "SELECT attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull"
    " FROM pg_attribute JOIN pg_class ON oid = attrelid WHERE attnum > 0 AND NOT attisdropped"
    f" AND relkind IN ('r', 'p') AND relnamespace::regnamespace::text {OURS}",
    "constraints": "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    f" WHERE connamespace::regnamespace::text {OURS}",
    "triggers": "SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal",
    # Tracking functions hold the numbers of relations, which are others in another run.
    "functions": "SELECT oid::regprocedure, proowner::regrole, provolatile, proparallel, proconfig,"
    " md5(regexp_replace(prosrc, '(written from|columns) \\S+|\\d{5,}', '', 'g'))"
    " FROM pg_proc WHERE pronamespace::regnamespace::text IN ('lakets', 'public')",
}

# When something was done, and in which transaction, is no part of the state; that it was done is.
STAMPS = {
    *("created_at", "tiered_at", "trimmed_at", "last_run_at", "retained_at", "last_refreshed_at"),
    *("installed_at", "applied_at"),
    *("noted_at", "invalidated_at", "absorbed", "proven", "observed", "observed_lsn"),
    *("xid", "lsn", "snapshot"),
    *("relation", "cluster"),  # numbers that tell this database from another
}
# A job that was cut off has no note of its run.
NOTES = "_job_run"
# A transaction that was lost leaves gaps in these numbers, and in the space that a table takes.
ACCIDENTS = {("_chunk_metadata", "id"), ("_rollup_invalidation_log", "id"), ("_chunk_metadata", "size_bytes")}


def state(conninfo: str) -> State:
    """Return everything except stamps: definitions, and each row with its partition."""
    found: State = defaultdict(list)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("SET search_path = pg_catalog; SET timezone = 'UTC'")
        for aspect, query in CATALOG.items():
            rows = conn.execute(f"SELECT q::text FROM ({query}) AS q".encode()).fetchall()
            found[aspect] = sorted(re.sub(r"_find_\d+_", "_find_", row) for (row,) in rows)
        tables = conn.execute(
            "SELECT oid::regclass::text, relname FROM pg_class WHERE relkind IN ('r', 'p')"
            f" AND NOT relispartition AND relname <> '{NOTES}'"
            f" AND relnamespace::regnamespace::text {OURS}".encode()
        ).fetchall()
        for table, name in tables:
            rows = conn.execute(
                f"SELECT to_jsonb(t), tableoid::regclass::text FROM {table} AS t".encode()
            ).fetchall()
            found[table] = sorted(f"{partition}: {_known(name, row)}" for row, partition in rows)
    return found


def _known(table: str, row: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(
        (column, value is not None if column in STAMPS else value)
        for column, value in row.items()
        if (table, column) not in ACCIDENTS
    )


def difference(one: State, other: State) -> list[str]:
    """Return the differences of two states, marked - and +."""
    return [
        f"{sign} {aspect}: {line}"
        for aspect in sorted(one.keys() | other.keys())
        for sign, here, there in (
            ("-", one.get(aspect, []), other.get(aspect, [])),
            ("+", other.get(aspect, []), one.get(aspect, [])),
        )
        for line in _without(here, there)
    ]


def _without(lines: list[str], others: list[str]) -> list[str]:
    left = list(others)
    missing = []
    for line in lines:
        if line in left:
            left.remove(line)
        else:
            missing.append(line)
    return missing
