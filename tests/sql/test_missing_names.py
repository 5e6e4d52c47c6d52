"""A name that is null: each public function says what is missing, or takes all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.stage import Stage

PLAUSIBLE = {
    "text": "metrics",
    "text[]": "{}",
    "interval": "1 day",
    "boolean": "false",
    "integer": "1",
    "bigint": "1",
    "jsonb": "{}",
    "double precision": "1",
    "timestamp with time zone": "2024-01-02+00",
}
SPECIAL = {"p_query": "SELECT 1 AS value"}
NAMED = """
SELECT fn.proname, fn.proargnames[1:fn.pronargs],
       ARRAY(SELECT format_type(arg, NULL) FROM unnest(fn.proargtypes) AS arg),
       fn.prorettype = 'record'::regtype AND fn.proargmodes IS NULL
  FROM pg_proc AS fn
 WHERE fn.pronamespace = 'lakets'::regnamespace AND fn.prokind = 'f' AND fn.proname !~ '^_'
   AND EXISTS (SELECT FROM unnest(fn.proargnames[1:fn.pronargs]) AS arg WHERE arg LIKE '%name')
 ORDER BY fn.oid::regprocedure::text
"""
# Postgres' own words for what a function did with it.
RAW = {"22004", "42601", "42804", "XX000"}


def test_null_for_a_name_is_refused_in_our_words(stage: Stage) -> None:
    stage.table()
    raw, tried = [], 0
    for function, names, types, needs_columns in stage.run(NAMED):
        for missing in [at for at, name in enumerate(names) if name.endswith("name")]:
            values: list[str | None] = [
                SPECIAL.get(name, PLAUSIBLE[kind]) for name, kind in zip(names, types, strict=True)
            ]
            values[missing] = None
            placeholders = ", ".join(f"%s::{kind}" for kind in types)
            call = f"SELECT * FROM lakets.{function}({placeholders})" + " AS t (n integer)" * needs_columns
            tried += 1
            try:
                with stage.conn.transaction(force_rollback=True):
                    stage.conn.execute(call.encode(), values)
            except psycopg.Error as error:
                if error.sqlstate in RAW:
                    raw.append(f"{function}({names[missing]} => NULL): {error}")

    assert tried > 50
    assert raw == []


@pytest.mark.parametrize("name", ["p_catalog", "p_uc_schema", "p_view_name"])
def test_name_in_unity_catalog_is_not_empty(stage: Stage, name: str) -> None:
    stage.synced()
    values = {"p_catalog": "main", "p_uc_schema": "lake", "p_view_name": "history", name: ""}

    with pytest.raises(psycopg.errors.RaiseException, match="must not be empty"):
        stage.run(
            "SELECT lakets.history_view_sql('metrics', 'public', %s, %s, %s)",
            *values.values(),
        )
