"""Rules for every function and table of the engine, read from an installed database's catalog."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import airflow_provider_lakets
from airflow_provider_lakets.engine import migrations, modules

if TYPE_CHECKING:
    from tests.sandbox import Sandbox

# Inlined by the planner, or called for every row: they look up no name that is not qualified.
COMPUTING = re.compile(
    r"time_bucket|interpolate|delta|rate|locf|histogram"
    r"|_\w+_(step|merge|value)|_growth|_is_(plain|bad)_bucket|_month\w*|_writes_exactly"
)

# They parse a query under the search_path of the caller.
UNDER_THE_CALLERS_SEARCH_PATH = {"alert_check", "create_rollup", "create_rollup_view"}

# Stable, yet they open a subtransaction, or look at other sessions' locks.
NOT_IN_PARALLEL = {
    "_cdf_committed_lsn",
    "_cdf_report",
    "_cdf_status",
    "_ended_now",
    "_identity_problem",
    "_sync_gap",
}

# Called by the install only, which sets its own lock_timeout.
INSTALL = {"_adopt_chronotable", "_adopt_rollup"}

# Writes a statement for another system.
FOR_DATABRICKS = {"history_view_sql"}

# They run as the owner of a table: its triggers, so that writers need no rights on LakeTS objects,
# and the function that fills a RollUp, so that its query has no other rights.
OF_AN_OWNER = re.compile(r"_track_(rollup_)?\d+_(insert|update|move|delete|truncate)|_lvc_\d+|_fill_daily")

LOCKING = re.compile(
    r"\b(LOCK TABLE|(ATTACH|DETACH) PARTITION|(DROP|ALTER|TRUNCATE) TABLE|DROP TRIGGER"
    r"|CREATE (TRIGGER|INDEX|OR REPLACE VIEW)|pg_advisory_xact_lock(_shared)?\()"
)


@pytest.fixture
def populated(db: Sandbox) -> Sandbox:
    """Yield a database in which LakeTS has generated all that it generates."""
    db.run("SET LOCAL timezone = 'UTC'")
    db.chronotable("id int, ts timestamptz, value float8, PRIMARY KEY (id, ts)", synced=True)
    db.chronotable("ts timestamptz, value float8", name="keyless", synced=True)
    db.chronotable("ts timestamptz, value float8", name="plain")
    db.run(
        "SELECT lakets.create_rollup('daily', $$SELECT lakets.time_bucket('1 day', ts) AS bucket, sum(value)"
        " FROM public.metrics GROUP BY 1$$, '1 day')"
    )
    db.run("SELECT lakets.enable_sync('daily')")
    db.run("SELECT lakets.enable_lvc('plain', '{value}', '{}')")
    return db


def offenders(db: Sandbox, condition: str) -> set[str]:
    """Return the names of the functions of which a condition is true."""
    return set(
        db.column(
            "SELECT fn.proname FROM pg_proc AS fn WHERE fn.pronamespace = 'lakets'::regnamespace"
            f" AND fn.prokind <> 'a' AND ({condition})"
        )
    )


def test_every_function_fixes_its_search_path(populated: Sandbox) -> None:
    without = offenders(
        populated, "NOT coalesce(fn.proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)"
    )

    assert {name for name in without if not COMPUTING.fullmatch(name)} == UNDER_THE_CALLERS_SEARCH_PATH


def test_only_what_computes_and_cannot_write_may_do_without_a_search_path(populated: Sandbox) -> None:
    writing = offenders(populated, "fn.proconfig IS NULL AND fn.provolatile = 'v'")

    assert writing == UNDER_THE_CALLERS_SEARCH_PATH


def test_functions_run_with_the_rights_of_their_caller_but_for_those_of_an_owner(populated: Sandbox) -> None:
    definers = offenders(populated, "fn.prosecdef")

    assert {name for name in definers if not OF_AN_OWNER.fullmatch(name)} == set()
    assert (
        offenders(
            populated,
            "NOT fn.prosecdef"
            " AND fn.proname ~ '^_track_.*_(insert|update|move|delete|truncate)$|^_fill_daily$'",
        )
        == set()
    )


def test_functions_of_an_owner_can_be_executed_by_that_owner_only(populated: Sandbox) -> None:
    assert (
        offenders(populated, "fn.prosecdef AND has_function_privilege('public', fn.oid, 'EXECUTE')") == set()
    )


def test_what_writes_is_not_parallel_safe_and_what_reads_is(populated: Sandbox) -> None:
    assert offenders(populated, "fn.provolatile = 'v' AND fn.proparallel <> 'u'") == set()
    assert offenders(populated, "fn.provolatile <> 'v' AND fn.proparallel <> 's'") == NOT_IN_PARALLEL


def test_what_catches_errors_is_not_parallel_safe(populated: Sandbox) -> None:
    """A block that does is a subtransaction, which a query that runs in parallel cannot start."""
    assert offenders(populated, r"fn.prosrc ~ '\mEXCEPTION WHEN' AND fn.proparallel = 's'") == set()


def test_every_header_states_volatility_and_parallel_safety() -> None:
    headers = [
        header
        for module in modules()
        for header in re.findall(
            r"CREATE OR REPLACE FUNCTION (.*?)\nAS (?:\$\$|%L)", module.read_text(), re.DOTALL
        )
    ]

    assert len(headers) > 100
    assert [
        header.split("(")[0]
        for header in headers
        if not re.search(r"\b(VOLATILE|STABLE|IMMUTABLE)\b.*\bPARALLEL (SAFE|UNSAFE|RESTRICTED)\b", header)
    ] == []


def test_whatever_locks_gives_up_after_a_while(populated: Sandbox) -> None:
    functions = {
        name: (source, bounded)
        for name, source, bounded in populated.run(
            "SELECT proname, prosrc, coalesce(proconfig::text LIKE '%lock_timeout=2s%', false) FROM pg_proc"
            " WHERE pronamespace = 'lakets'::regnamespace"
        )
    }
    callers: dict[str, set[str]] = {name: set() for name in functions}
    for name, (source, _) in functions.items():
        for callee in set(re.findall(r"\blakets\.(\w+)\(", source)) & functions.keys() - {name}:
            callers[callee].add(name)

    def is_bounded(name: str, seen: frozenset[str] = frozenset()) -> bool:
        if functions[name][1] or name in INSTALL:
            return True
        above = callers[name] - seen
        return bool(above) and all(is_bounded(caller, seen | {name}) for caller in above)

    locking = {name for name, (source, _) in functions.items() if LOCKING.search(source)} - FOR_DATABRICKS
    assert len(locking) > 15
    assert {name for name in locking if not is_bounded(name)} == set()


def test_refusals_are_raise_exception_but_for_what_a_later_try_may_cure(populated: Sandbox) -> None:
    codes = {
        (path.name, code)
        for path in modules()
        for code in re.findall(r"RAISE EXCEPTION[^;]*?ERRCODE = '(\w+)'", path.read_text())
    }

    # A missing right has its own code, as in Postgres. LT001 never leaves the engine; time_bucket
    # and what computes like it keep the code of date_bin.
    allowed = {"lock_not_available", "insufficient_privilege", "LT001"}
    assert {(name, code) for name, code in codes if name >= "15" and code not in allowed} == set()
    assert {code for name, code in codes if name < "15"} == {"invalid_parameter_value"}


def test_modules_hold_plain_sql_that_any_client_can_run() -> None:
    assert [
        path.name
        for path in [*modules(), *migrations()]
        if re.search(r"^\\|^\s*(BEGIN|COMMIT|ROLLBACK)\s*;", path.read_text(), re.MULTILINE)
    ] == []


def test_migrations_are_numbered_without_gaps() -> None:
    assert [int(re.fullmatch(r"(\d{4})_[a-z_]+", path.stem)[1]) for path in migrations()] == list(  # type: ignore[index]
        range(1, len(migrations()) + 1)
    )


def test_what_the_provider_calls_does_not_depend_on_how_a_session_writes_names(db: Sandbox) -> None:
    package = Path(airflow_provider_lakets.__file__).parent
    source = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    called = sorted(set(re.findall(r"(?:lakets\.|\")(_[a-z_]+)(?=\(|\",)", source)))

    without = db.column(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'lakets'::regnamespace"
        " AND proname = ANY (%s) AND proconfig::text LIKE '%%search_path%%'"
        " AND proconfig::text NOT LIKE '%%quote_all_identifiers=off%%'",
        called,
    )

    assert "_ensure_partitions" in called
    assert without == []
