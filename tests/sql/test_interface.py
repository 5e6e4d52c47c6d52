"""The public interface of LakeTS 0.1.3, from two lists, compared with an installed engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.older import FUNCTIONS_01, TABLES_01, in_short

if TYPE_CHECKING:
    import psycopg

    from tests.sandbox import Sandbox

COMPATIBILITY = Path(__file__).parents[2] / "docs" / "compatibility.md"

#: Where a table differs on purpose; docs/compatibility.md says why.
TABLES_DIFFER = {
    "_rollup_registry source_chronotable_id integer not null": "a RollUp may read other RollUps only",
    "_rollup_invalidation_log UNIQUE (rollup_id, bucket_start)": "sessions that mark a bucket do not wait",
}


def parts(listed: str) -> list[str]:
    """Split a list of arguments or columns at its commas."""
    return [part for part in re.split(r", ", listed) if part]


class Signature:
    """One line of the list, parsed."""

    def __init__(self, line: str) -> None:
        found = re.fullmatch(r"(\w+)\((.*?)\) -> (.*?)( \[aggregate\])?( immutable)?", line)
        assert found is not None, line
        self.name, arguments, self.result = found[1], found[2], found[3]
        self.arguments = parts(arguments)
        self.is_aggregate, self.is_immutable = bool(found[4]), bool(found[5])


def has_at_least(found: str, wanted: str) -> bool:
    """Return whether a result is the expected one, or has more columns at the end."""
    if wanted.startswith("TABLE("):
        columns = parts(wanted.removeprefix("TABLE(").removesuffix(")"))
        return parts(found.removeprefix("TABLE(").removesuffix(")"))[: len(columns)] == columns
    return found == wanted


@pytest.mark.parametrize("line", FUNCTIONS_01, ids=lambda line: line.split("(")[0])
def test_a_function_is_as_in_0_1_3(db: Sandbox, line: str) -> None:
    wanted = Signature(line)
    db.run("SET LOCAL timezone = 'UTC'")
    found = db.run(
        "SELECT CASE prokind WHEN 'a' THEN oidvectortypes(proargtypes)"
        " ELSE pg_get_function_arguments(oid) END,"
        " pg_get_function_result(oid), prokind = 'a', provolatile = 'i' FROM pg_proc"
        " WHERE pronamespace = 'lakets'::regnamespace AND proname = %s",
        wanted.name,
    )

    def fits(arguments: str, result: str, is_aggregate: bool, is_immutable: bool) -> bool:
        given = parts(in_short(arguments))
        more = given[len(wanted.arguments) :]
        return (
            given[: len(wanted.arguments)] == wanted.arguments
            and all(" DEFAULT " in argument for argument in more)
            and has_at_least(in_short(result), wanted.result)
            and is_aggregate == wanted.is_aggregate
            and (is_immutable or not wanted.is_immutable)
        )

    assert [row for row in found if fits(*row)], found


@pytest.mark.parametrize("line", FUNCTIONS_01, ids=lambda line: line.split("(")[0])
def test_no_other_form_of_a_function_makes_a_call_of_0_1_3_ambiguous(db: Sandbox, line: str) -> None:
    wanted = Signature(line)
    if wanted.is_aggregate:
        positions = ["NULL::float8", "'2026-01-01'"]
        calls = [f"{wanted.name}({', '.join(positions)})"]
    else:
        names = [argument.split()[0] for argument in wanted.arguments]
        required = sum(" DEFAULT " not in argument for argument in wanted.arguments)
        calls = [
            f"{wanted.name}({', '.join(form)})"
            for count in range(required, len(names) + 1)
            for form in (["NULL"] * count, [f"{name} => NULL" for name in names[:count]])
        ]
    select = "SELECT" if wanted.is_aggregate else "SELECT * FROM"
    columns = " AS t (a int)" if wanted.result == "SETOF record" else ""

    for call in calls:
        db.run(f"PREPARE found AS {select} lakets.{call}{columns}")
        db.run("DEALLOCATE found")


# As Postgres lets a call of 0.1.3 through: every number becomes a float8, a literal what is asked
# for.
CALLS = {
    "delta(3::int, 5::numeric)": 3.0,
    "delta(5::real, '3')": 2.0,
    "delta(3, 5, false)": -2.0,
    "delta(p_prev_value => 4::bigint, p_value => 6::smallint)": 2.0,
    "rate(10, 4, '2026-01-01 00:01+00', '2026-01-01 00:00+00')": 0.1,
    "rate(10::numeric, 4::real, '2026-01-02'::date, '2026-01-01'::date)": pytest.approx(6 / 86400),
    "locf(NULL)": None,
    "locf(NULL, 3)": 3.0,
    "locf(2::int)": 2.0,
    "interpolate(NULL, 1, 3::numeric, '2026-01-01', '2026-01-02', '2026-01-03')": 2.0,
    "histogram(25, 0::numeric, 100::real, 4)": 1,
    "first(7::int, '2026-01-01')": 7.0,
    "last(7::bigint, '2026-01-01'::timestamptz)": 7.0,
    "last(7.5::real, now()::timestamp)": 7.5,
    "time_bucket('1 hour', '2026-01-01 10:20+00') = '2026-01-01 10:00+00'": True,
}


@pytest.mark.parametrize(("call", "expected"), CALLS.items(), ids=list(CALLS))
def test_numbers_and_literals_of_any_type_are_taken(
    calculator: psycopg.Connection, call: str, expected: object
) -> None:
    (found,) = calculator.execute(f"SELECT lakets.{call}".encode()).fetchone() or (None,)

    assert found == expected
    assert type(found) is type(expected) or not isinstance(expected, float | int)


COLUMNS = """
SELECT attname || ' ' || format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' not null' ELSE '' END
       || CASE WHEN attidentity <> '' THEN ' default nextval'
               ELSE coalesce(' default ' || pg_get_expr(adbin, adrelid), '') END
  FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
"""
CONSTRAINTS = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass"


@pytest.mark.parametrize("line", [line for line in TABLES_01 if " CHECK " not in line])
def test_a_table_is_as_in_0_1_3(db: Sandbox, line: str) -> None:
    table, what = line.split(" ", 1)
    relation = f"lakets.{table}"
    if re.match(r"(PRIMARY KEY|UNIQUE|FOREIGN KEY) ", what):
        found = {text.replace("lakets.", "") for (text,) in db.run(CONSTRAINTS, relation)}
    else:
        found = {in_short(column) for column in db.column(COLUMNS, relation)}
        # Ours may be stricter, or fill in what 0.1.3 asked for: a default, or no NULL where there
        # is one.
        if " default " in what and " not null" not in what:
            found |= {text.replace(" not null", "") for text in found}
        found |= {text.partition(" default ")[0] for text in found}

    assert (in_short(what) in found) is (line not in TABLES_DIFFER), found


def test_the_document_lists_the_tables_that_differ_and_no_others() -> None:
    documented = re.findall(r"^\| `(_\w+)(?:\.(\w+))?` \|", COMPATIBILITY.read_text(), re.MULTILINE)
    differing = [re.match(r"(_\w+) (?:([a-z_]\w*) )?", line) for line in TABLES_DIFFER]

    assert sorted(documented) == sorted((found[1], found[2] or "") for found in differing if found)
