"""The database of `calls.sql`, with something of everything, and the calls of `calls.py` in it."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

# All but those that only say that they are gone.
FUNCTIONS = """
SELECT replace(fn.oid::regprocedure::text, 'lakets.', ''), fn.provolatile = 'v'
  FROM pg_proc AS fn LEFT JOIN pg_aggregate AS agg ON agg.aggfnoid = fn.oid
 WHERE fn.pronamespace = 'lakets'::regnamespace
   AND (fn.proname NOT LIKE '\\_%' OR fn.proname IN (
        '_build_rollup_dag', '_cdf_committed_lsn', '_ensure_partitions', '_get_chunks_to_tier',
        '_rollup_watermark'))
   AND concat(fn.prosrc, agg.aggtransfn) !~ '_refuse_(older_form|rate_step)' ORDER BY 1"""

PLAIN = {
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "session_replication_role": "origin",
    "search_path": "public",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "bytea_output": "hex",
    "debug_parallel_query": "off",
}
ZONE = "America/New_York"

# An interval of months before now that means one instant in UTC and another in ZONE, and these two.
HORIZONS = """
SELECT gap.i::text, least(gap.utc, gap.zoned)::text, greatest(gap.utc, gap.zoned)::text,
       (gap.utc + (gap.zoned - gap.utc) / 2)::text
  FROM (SELECT i, (now() AT TIME ZONE 'UTC' - i) AT TIME ZONE 'UTC' AS utc,
               (now() AT TIME ZONE %(zone)s - i) AT TIME ZONE %(zone)s AS zoned
          FROM generate_series(1, 11) AS n, make_interval(months => n) AS i) AS gap
 WHERE gap.utc <> gap.zoned ORDER BY gap.i LIMIT 1"""

# All that a call could have changed, but for numbers that differ from run to run.
PASSING = (
    "{relation,cluster,owner,absorbed,last_refreshed_at,xid,lsn,snapshot,proven,observed,observed_lsn,baseline,"
    "size_bytes}"
)
TABLES = """
SELECT cls.oid::regclass::text FROM pg_class AS cls
 WHERE cls.relnamespace::regnamespace::text IN ('lakets', 'lakets_cdf', 'public')
   AND cls.relkind IN ('r', 'p') AND NOT cls.relispartition
   AND cls.relname NOT IN ('migration', '_version') ORDER BY 1"""
DEFINITIONS = """
SELECT cls.oid::regclass::text, pg_get_expr(cls.relpartbound, cls.oid), pg_get_viewdef(cls.oid)
  FROM pg_class AS cls
 WHERE cls.relnamespace = 'public'::regnamespace AND cls.relkind IN ('r', 'p', 'v')
UNION ALL
SELECT idx.indexrelid::regclass::text, pg_get_indexdef(idx.indexrelid), NULL FROM pg_index AS idx
  JOIN pg_class AS cls ON cls.oid = idx.indexrelid AND cls.relnamespace = 'public'::regnamespace
UNION ALL
SELECT con.conrelid::regclass || con.conname, pg_get_constraintdef(con.oid), NULL FROM pg_constraint AS con
 WHERE con.connamespace = 'public'::regnamespace
UNION ALL
SELECT def.adrelid::regclass || def.adnum::text, pg_get_expr(def.adbin, def.adrelid), NULL
  FROM pg_attrdef AS def
  JOIN pg_class AS cls ON cls.oid = def.adrelid AND cls.relnamespace = 'public'::regnamespace
UNION ALL
SELECT pol.polrelid::regclass || pol.polname, pg_get_expr(pol.polqual, pol.polrelid), NULL
  FROM pg_policy AS pol
UNION ALL
SELECT trg.tgrelid::regclass || trg.tgname, pg_get_triggerdef(trg.oid), trg.tgenabled::text
  FROM pg_trigger AS trg WHERE NOT trg.tgisinternal
UNION ALL
SELECT ext.stxname, pg_get_statisticsobjdef(ext.oid), NULL FROM pg_statistic_ext AS ext
UNION ALL
SELECT fn.proname, regexp_replace(coalesce(pg_get_function_sqlbody(fn.oid), fn.prosrc),
                                  '(written from|columns) \\S+|\\m\\d{5,}\\M', '', 'g'),
       fn.proconfig::text
  FROM pg_proc AS fn
 WHERE fn.pronamespace = 'lakets'::regnamespace AND fn.proname ~ '^_(track|lvc|fill|rollup_live)_'
 ORDER BY 1, 2"""


class World(NamedTuple):
    """A database, and what stands for what in the calls."""

    conn: psycopg.Connection
    values: dict[str, str]
    sequences: list[str]

    def apply(self, settings: dict[str, str]) -> None:
        for name, value in settings.items():
            self.conn.execute("SELECT pg_catalog.set_config(%s, %s, true)", [name, value])

    def state(self) -> Counter[tuple[Any, ...]]:
        """Return all that is kept in the database, read under settings of its own."""
        self.apply(PLAIN | {"search_path": "pg_catalog"})
        kept = Counter(self.conn.execute(DEFINITIONS.encode()).fetchall())
        for (table,) in self.conn.execute(TABLES).fetchall():
            kept.update(
                (table, row)
                for (row,) in self.conn.execute(
                    f"SELECT (to_jsonb(t) - '{PASSING}'::text[])::text FROM {table} AS t".encode()
                )
            )
        return kept

    def call(self, calls: str, settings: dict[str, str], *, changes: bool) -> tuple[Any, ...]:
        """Return the result of the last statement and what the statements leave; then undo them."""
        with self.conn.transaction(force_rollback=True):
            for sequence in self.sequences:
                self.conn.execute("SELECT setval(%s, 1000)", [sequence])
            self.apply(PLAIN | settings)
            rows: list[tuple[Any, ...]] = []
            for statement in calls.split(";"):
                cursor = self.conn.execute(statement.encode(), binary=True)
                rows = cursor.fetchall() if cursor.description else []
            return rows, self.state() if changes else Counter()


def fill(text: str, values: dict[str, str], quote: str = "'") -> str:
    for name, value in values.items():
        text = text.replace(name, f"{quote}{value}{quote}")
    return text


@contextlib.contextmanager
def world_of(postgres: EmbeddedPostgres, template: str, name: str) -> Iterator[World]:
    """Make the database, under the given name."""
    with psycopg.connect(postgres.ensure_database(name, template=template), autocommit=True) as conn:
        conn.execute("SET client_min_messages = error")
        with conn.transaction():  # one now() for all
            row = conn.execute(HORIZONS, {"zone": ZONE}).fetchone()
            assert row is not None
            values = dict(zip(("$gap", "$old", "$new", "$middle"), row, strict=True))
            conn.execute(fill((Path(__file__).parent / "calls.sql").read_text(), values, "").encode())
        sequences = conn.execute(
            "SELECT oid::regclass::text FROM pg_class"
            " WHERE relkind = 'S' AND relnamespace = 'lakets'::regnamespace"
        ).fetchall()
        yield World(conn, values, [sequence for (sequence,) in sequences])
    postgres.drop_database(name)
