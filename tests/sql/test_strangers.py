"""A role without rights, and a writer with rights on two columns, cannot affect LakeTS."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.sandbox import Sandbox
from tests.sql.calls import CALLS
from tests.sql.world import PLAIN, World, fill, world_of
from tests.stage import FEED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

SETTING = """
CREATE ROLE keeper; CREATE ROLE stranger; CREATE ROLE column_writer;
GRANT USAGE, CREATE ON SCHEMA public, lakets, lakets_cdf TO keeper;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO keeper;
CREATE TABLE m (id int, ts timestamptz, v int, secret text, PRIMARY KEY (id, ts));
ALTER TABLE m OWNER TO keeper;
INSERT INTO m
SELECT n, '2024-01-01'::timestamptz + n * interval '1 day', n, 'hidden' FROM generate_series(0, 3) AS n;
SELECT lakets.create_chronotable('m', 'ts', '1 day');
GRANT UPDATE (v), SELECT (ts) ON m TO column_writer;
SET LOCAL ROLE keeper;
SELECT lakets.create_rollup('daily', 'SELECT lakets.time_bucket(''1 day'', ts) AS bucket, sum(v) AS total
                                        FROM public.m GROUP BY 1', '1 day');
SELECT lakets.enable_sync('m'), lakets.enable_sync('daily');
SELECT lakets.add_tiered_retention_policy('m', '1 day', '2 days');
UPDATE m SET v = v + 1;
RESET ROLE;
"""

# By title; {id} stands for the ChronoTable's.
STATEMENTS = dict(
    re.findall(
        r"^-- ([^\n]+)\n([^-\n].*?)$",
        Path(__file__).with_name("strangers.sql").read_text(),
        re.MULTILINE,
    )
)


@pytest.fixture(scope="module")
def made(sandbox: psycopg.Connection) -> Iterator[Sandbox]:
    with sandbox.transaction(force_rollback=True):
        db = Sandbox(sandbox)
        db.run(SETTING)
        db.run(FEED)
        db.run("INSERT INTO wal2delta.tables SELECT 'lakets_cdf._shadow_m'::regclass, 'STREAMING', '0/1'")
        yield db


@pytest.fixture
def world(made: Sandbox) -> Iterator[Sandbox]:
    with made.undone():
        yield made


def portrait(db: Sandbox) -> dict[str, Any]:
    """Return all that LakeTS keeps, the table and its RollUp, and what guards them."""
    relations = db.column(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND (relnamespace IN"
        " ('lakets'::regnamespace, 'lakets_cdf'::regnamespace) OR relname ~ '^(m|_rollup_)') ORDER BY 1"
    )
    rows = {name: sorted(db.column(f"SELECT t::text FROM {name} AS t")) for name in relations}
    rows["triggers"] = db.run("SELECT tgrelid, tgname, tgenabled, tgfoid FROM pg_trigger ORDER BY oid")
    rows["functions"] = db.run("SELECT oid, md5(prosrc) FROM pg_proc ORDER BY oid")
    rows["held"] = db.run(
        "SELECT relation::regclass::text, mode FROM pg_locks WHERE pid = pg_backend_pid()"
        " AND mode = 'AccessExclusiveLock'"
        " AND relation::regclass::text ~ '^(lakets\\.|lakets_cdf\\.)_(chunk|change|mirror)' ORDER BY 1"
    )
    return rows


@pytest.mark.parametrize("role", ["stranger", "column_writer"])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_role_without_rights_changes_reads_and_holds_nothing(
    world: Sandbox, statement: str, role: str
) -> None:
    table_id = world.value("SELECT id FROM lakets._chronotable_registry")
    before = portrait(world)
    world.run(f"SET LOCAL ROLE {role}")

    with contextlib.suppress(psycopg.errors.InsufficientPrivilege), world.conn.transaction():
        world.conn.execute(STATEMENTS[statement].replace("{id}", str(table_id)).encode())

    world.run("RESET ROLE")
    assert portrait(world) == before
    assert not world.value("SELECT lakets.tier_chunk('public.m_20240101_000000')")
    assert world.value("SELECT lakets.execute_retention('m')") == 0
    world.run("UPDATE m SET v = v + 1; SELECT lakets.refresh_rollup('daily', true)")
    assert world.mirror_difference("m") == []
    assert world.value("SELECT sum(total) FROM _rollup_daily") == 14


def test_the_list_is_as_long_as_it_was() -> None:
    assert len(STATEMENTS) >= 50


def test_a_writer_of_one_column_writes_that_and_is_tracked(world: Sandbox) -> None:
    world.run("SET LOCAL ROLE column_writer; UPDATE m SET v = 5 WHERE ts > '2024-01-02'; RESET ROLE")

    assert world.mirror_difference("m") == []
    world.run("SELECT lakets.refresh_rollup('daily', true)")
    assert world.value("SELECT sum(total) FROM _rollup_daily") == 1 + 2 + 5 + 5


@pytest.fixture(scope="module")
def offered(postgres: EmbeddedPostgres, template: str) -> Iterator[World]:
    """A database with every kind of object; the guest has only USAGE on the schemas."""
    with world_of(postgres, template, "lakets_strangers") as made:
        made.conn.execute(
            "CREATE ROLE passer_by; CREATE ROLE guest; GRANT USAGE ON SCHEMA lakets, lakets_cdf TO guest"
        )
        yield made
        made.conn.execute("DROP OWNED BY passer_by, guest; DROP ROLE passer_by, guest")


# A call of each function with NULL for every argument; new functions are included.
EVERY_FUNCTION = """
SELECT format('SELECT lakets.%I(%s)%s', fn.proname, string_agg('NULL::' || arg.type, ', '),
              CASE fn.prokind WHEN 'w' THEN ' OVER ()' END)
  FROM pg_proc AS fn
  LEFT JOIN LATERAL (SELECT regexp_replace(format_type(one, NULL), '^any.*', 'int')
                       FROM unnest(fn.proargtypes::oid[]) AS one) AS arg (type) ON true
 WHERE fn.pronamespace = 'lakets'::regnamespace AND fn.prorettype <> 'trigger'::regtype
 GROUP BY fn.oid"""


def test_a_role_without_rights_can_call_no_function(offered: World) -> None:
    calls = [call for (call,) in offered.conn.execute(EVERY_FUNCTION.encode())]
    answered = []
    with offered.conn.transaction(force_rollback=True):
        offered.conn.execute("SET LOCAL ROLE passer_by")
        for call in calls:
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege), offered.conn.transaction():
                offered.conn.execute(call.encode())
                answered.append(call)

    assert len(calls) > 300
    assert answered == []


@pytest.mark.parametrize("role", ["passer_by", "guest"])
def test_a_role_without_rights_on_tables_changes_nothing_by_any_function(offered: World, role: str) -> None:
    with offered.conn.transaction(force_rollback=True):  # one now() for all
        before = offered.state()
        offered.apply(PLAIN)
        for call in CALLS.values():
            offered.conn.execute(f"SET LOCAL ROLE {role}".encode())
            for statement in fill(call, offered.values).split(";"):
                with contextlib.suppress(psycopg.Error), offered.conn.transaction():
                    offered.conn.execute(statement.encode())
        offered.conn.execute("RESET ROLE")

        assert offered.state() == before
