"""Calls of earlier builds of 0.2.0 end in one error that says what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.sandbox import Sandbox

ROWS = (
    "(VALUES (1, 2.5, timestamptz '2026-01-01', timestamp '2026-01-01', date '2026-01-01'))"
    " AS r (i, v, t, l, d)"
)
REFUSED = {
    "SELECT lakets.rate(v::float8, t ORDER BY t) FROM {rows}": "rate_agg",
    "SELECT lakets.rate(v, l) FROM {rows}": "rate_agg",
    "SELECT lakets.rate(i, d) OVER (ORDER BY d) FROM {rows}": "rate_agg",
    "SELECT lakets.rate(v::float8, t) FROM {rows} WHERE false": "rate_agg",
    "SELECT lakets.interpolate(t, t, v::float8, t, v::float8) FROM {rows}": "prev_time, time, next_time",
    "SELECT lakets.interpolate(d, d, v, d, i) FROM {rows}": "prev_time, time, next_time",
    "SELECT lakets.interpolate(p_time => l, p_prev_time => l, p_prev_value => v, p_next_time => l,"
    " p_next_value => v) FROM {rows}": "prev_time, time, next_time",
    "SELECT lakets.interpolate('2026-01-02', '2026-01-01', 1, '2026-01-03', 2)": "prev_time, time, next_time",
    "SELECT * FROM lakets.show_retention_policy()": r"show_retention_policy\('metrics'\)",
    "SELECT * FROM lakets.show_tiering_policy()": r"show_tiering_policy\('metrics'\)",
}


@pytest.mark.parametrize("call", REFUSED)
def test_a_form_that_is_gone_says_what_to_write_instead(db: Sandbox, call: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match=r"is a form of an earlier build") as refused:
        db.run(call.format(rows=ROWS))

    assert REFUSED[call].replace("\\", "") in str(refused.value.diag.message_hint)


# What a client sends that leaves the types of its parameters open. The forms of 0.1.3 must be
# found.
OPEN = (
    "delta($1, $2)",
    "delta($1, $2, $3)",
    "rate($1, $2, $3, $4)",
    "locf($1)",
    "locf($1, $2)",
    "interpolate($1, $2, $3, $4, $5, $6)",
    "histogram($1, $2, $3, $4)",
    "show_retention_policy($1)",
    "show_tiering_policy($1, $2)",
)


@pytest.mark.parametrize("call", OPEN)
def test_a_call_with_parameters_of_no_type_is_not_ambiguous(db: Sandbox, call: str) -> None:
    db.run(f"PREPARE found AS SELECT * FROM lakets.{call}")
    db.run("DEALLOCATE found")


# An error of ours for these would make valid calls ambiguous; docs/compatibility.md says what to
# write.
LEFT = (
    "SELECT lakets.delta(v, t) FROM {rows}",
    "SELECT lakets.locf(v::float8) OVER (ORDER BY t) FROM {rows}",
    "SELECT lakets.histogram(v::float8, 0, 10, 5 ORDER BY t) FROM {rows}",
    "SELECT lakets.first(v, i) FROM {rows}",
    "SELECT lakets.last(NULL, t) FROM {rows}",
    "SELECT lakets.create_rollup('daily', 'SELECT 1', p_depends_on => ARRAY[1])",
)


@pytest.mark.parametrize("call", LEFT)
def test_the_other_forms_fail_too_and_do_nothing_else(db: Sandbox, call: str) -> None:
    with pytest.raises(
        (
            psycopg.errors.UndefinedFunction,
            psycopg.errors.AmbiguousFunction,
            psycopg.errors.WrongObjectType,
            psycopg.errors.DatatypeMismatch,
        )
    ):
        db.run(call.format(rows=ROWS))
