"""LakeTSHook has a method for each public function of the engine."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.hooks import results
from airflow_provider_lakets.hooks.lakets import LakeTSHook
from airflow_provider_lakets.triggers.watch import caught_up, look

if TYPE_CHECKING:
    from tests.lab import Lab

# They compute inside a query, for each row or group, so they have no method in Python.
INSIDE_QUERIES = {
    "delta",
    "histogram",
    "interpolate",
    "locf",
    "rate",
    "time_bucket",
    "time_bucket_gapfill",
}

# Parameters for which a method uses the default of the function, or its own value.
LEFT_OUT = {
    "drop_chunks": {"max_chunks"},  # the method calls until nothing is left
    "trim_shadow": {"max_rows"},
}

FUNCTIONS = """
SELECT proc.proname, array_agg(DISTINCT arg.name) FILTER (WHERE arg.name LIKE 'p\\_%')
  FROM pg_proc AS proc
  LEFT JOIN LATERAL unnest(proc.proargnames) AS arg (name) ON true
 WHERE proc.pronamespace = 'lakets'::regnamespace AND proc.proname NOT LIKE '\\_%'
   AND proc.prokind = 'f'
   AND proc.prorettype <> 'trigger'::regtype
 GROUP BY 1
"""

OTHER_NAMES = {
    "ingest_batch": {"data": "rows"},
    "invalidate_rollup_range": {"from": "start", "to": "end"},  # from is a keyword
}


@pytest.mark.parametrize("engine", ["ours"])
def test_each_public_function_has_a_method_with_its_parameters(lab: Lab) -> None:
    differ = {}
    for name, parameters in lab.conn.execute(FUNCTIONS).fetchall():
        if name in INSIDE_QUERIES:
            continue
        method = getattr(LakeTSHook, name, None)
        if method is None:
            differ[name] = "no method"
            continue
        takes = set(inspect.signature(method).parameters)
        renamed = OTHER_NAMES.get(name, {})
        wanted = {renamed.get(one[2:], one[2:]) for one in parameters or ()} - LEFT_OUT.get(name, set())
        if missing := {
            one for one in wanted if one not in takes and one.removeprefix("rollup_") not in takes
        }:
            differ[name] = f"the method takes no {sorted(missing)}"

    assert differ == {}


# Columns that the record names otherwise, or joins.
OTHER_COLUMNS = {
    "chunk_health": {f"{state}_chunks": state for state in ("total", "active", "tiered", "dropped")},
    "show_tiering_status": {"schema_name": "table", "table_name": "table"},
}

RESULTS = """
SELECT proc.proname, array_agg(arg.name::text ORDER BY arg.place) AS columns
  FROM pg_proc AS proc
 CROSS JOIN LATERAL unnest(proc.proargnames, proc.proargmodes) WITH ORDINALITY AS arg (name, mode, place)
 WHERE proc.pronamespace = 'lakets'::regnamespace AND proc.proname NOT LIKE '\\_%' AND arg.mode = 't'
 GROUP BY 1
"""


@pytest.mark.parametrize("engine", ["ours"])
def test_each_record_has_the_columns_of_its_function(lab: Lab) -> None:
    differ, compared = {}, 0
    for name, columns in lab.conn.execute(RESULTS).fetchall():
        returned = getattr(LakeTSHook, name, object).__annotations__.get("return", "")
        record = getattr(results, returned.removeprefix("list[").removesuffix("]"), None)
        if record is not None:
            compared += 1
            fields = {field.name for field in dataclasses.fields(record)}
            wanted = {OTHER_COLUMNS.get(name, {}).get(column, column) for column in columns}
            if fields != wanted:
                differ[name] = f"{record.__name__} and the columns differ in {sorted(fields ^ wanted)}"

    assert differ == {}
    assert compared >= 8


@pytest.mark.parametrize("name", ["other.metrics", "metrics", "public.metrics"])
def test_a_table_with_a_dot_in_its_name_hides_no_other(lab: Lab, name: str) -> None:
    lab.table("metrics")
    lab.table("metrics", schema="other")
    lab.table("other.metrics")  # in schema public

    (found,) = lab.hook().chronotables([name])
    waiting = look(lab.hook(), caught_up(name))

    assert found.table_name == "metrics"
    assert waiting.keys() <= {name}
