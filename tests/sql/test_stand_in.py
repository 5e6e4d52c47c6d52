"""The stand-in for LakeTS 0.1.3 has its interface; the tests of the upgrade rely on that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.older import FUNCTIONS_01, LAKETS_01, TABLES_01, in_short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

COLUMNS = """
    SELECT concat_ws(' ', cls.relname, att.attname, format_type(att.atttypid, att.atttypmod),
                     CASE WHEN att.attnotnull THEN 'not null' END,
                     'default ' || pg_get_expr(def.adbin, def.adrelid))
      FROM pg_class AS cls
      JOIN pg_attribute AS att ON att.attrelid = cls.oid AND att.attnum > 0 AND NOT att.attisdropped
      LEFT JOIN pg_attrdef AS def ON def.adrelid = cls.oid AND def.adnum = att.attnum
     WHERE cls.relnamespace = 'lakets'::regnamespace AND cls.relkind = 'r' AND cls.relname = %s
     ORDER BY att.attnum
"""
CONSTRAINTS = """
    SELECT cls.relname || ' ' || pg_get_constraintdef(con.oid)
      FROM pg_constraint AS con JOIN pg_class AS cls ON cls.oid = con.conrelid
     WHERE cls.relnamespace = 'lakets'::regnamespace AND con.contype <> 'n' AND cls.relname = %s
    UNION
    SELECT cls.relname || ' UNIQUE ' || substring(pg_get_indexdef(idx.indexrelid) FROM '\\(.*\\)')
      FROM pg_index AS idx JOIN pg_class AS cls ON cls.oid = idx.indrelid
     WHERE cls.relnamespace = 'lakets'::regnamespace AND cls.relname = %s
       AND idx.indisunique AND NOT idx.indisprimary
"""


@pytest.fixture(scope="module")
def stand_in(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.ensure_database("stand_in")) as conn:
        conn.execute(LAKETS_01.encode())
        conn.execute("SET timezone = 'UTC'; SET search_path = lakets, pg_catalog")
        yield conn
    postgres.drop_database("stand_in")


@pytest.mark.parametrize("line", FUNCTIONS_01, ids=lambda line: line.split("(")[0])
def test_a_function_is_as_that_of_0_1_3(stand_in: psycopg.Connection, line: str) -> None:
    rows = stand_in.execute(
        "SELECT format('%%s(%%s) -> %%s%%s%%s', proname,"
        " pg_get_function_arguments(oid), pg_get_function_result(oid),"
        " CASE prokind WHEN 'a' THEN ' [aggregate]' END, CASE provolatile WHEN 'i' THEN ' immutable' END)"
        " FROM pg_proc WHERE pronamespace = 'lakets'::regnamespace AND proname = %s",
        [line.split("(")[0]],
    ).fetchall()

    assert [in_short(signature) for (signature,) in rows] == [line]


@pytest.mark.parametrize("table", sorted({line.split()[0] for line in TABLES_01}))
def test_a_table_is_as_that_of_0_1_3(stand_in: psycopg.Connection, table: str) -> None:
    columns = [text for (text,) in stand_in.execute(COLUMNS, [table])]
    constraints = [text for (text,) in stand_in.execute(CONSTRAINTS, [table, table])]

    written = [re.sub(r"nextval\(.*\)", "nextval", line) for line in columns]
    written = [
        re.sub(r"::[a-z ]+(\[\])?", "", line).replace("timestamp with time zone", "timestamptz")
        for line in written
    ]
    for line in constraints:
        values = re.findall(r"'(\w+)'", line)
        written.append(
            f"{table} CHECK {line.split('(')[2].split()[0]} {' '.join(values)}" if "CHECK" in line else line
        )
    assert sorted(written) == sorted(line for line in TABLES_01 if line.split()[0] == table)
    assert [line.split()[1] for line in written if line in TABLES_01][: len(columns)] == [
        line.split()[1] for line in TABLES_01 if line.split()[0] == table
    ][: len(columns)]


def test_a_lived_in_0_1_3_has_its_triggers(stand_in: psycopg.Connection) -> None:
    stand_in.execute(
        """
        SET client_min_messages = error;
        CREATE TABLE public.m (ts timestamptz NOT NULL, device text, value float8);
        SELECT create_chronotable('m', 'ts'), enable_sync('m'), add_tiering_policy('m', '1 day'),
               create_rollup('h', 'SELECT lakets.time_bucket(''1 hour'', ts) AS b FROM public.m GROUP BY 1',
                             '1 hour', 'm'),
               enable_rollup_invalidation('h'), enable_lvc('m', '{device}', '{value}');
        """
    )
    names = stand_in.execute(
        "SELECT tgname || CASE tgtype & 1 WHEN 1 THEN ' row' ELSE ' statement' END FROM pg_trigger"
        " WHERE NOT tgisinternal AND tgparentid = 0 GROUP BY 1 ORDER BY 1"
    ).fetchall()

    assert [name for (name,) in names] == [
        "trg_lakets_lvc row",
        "trg_lakets_rollup_bulk_invalidation statement",
        "trg_lakets_rollup_invalidation row",
        "trg_lakets_sync row",
        "trg_lakets_tier_lsn_delete statement",
        "trg_lakets_tier_lsn_insert statement",
        "trg_lakets_tier_lsn_update statement",
        "trg_lakets_touch_chunk statement",
        "trg_validate_rollup_deps row",
    ]
    stand_in.rollback()
