"""A RollUp's query has its owner's rights, whoever refreshes, installs or writes the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.engine import install_script

if TYPE_CHECKING:
    from tests.sandbox import Sandbox

# `tell` records its current role, after it tried to switch to another role. It is called for each
# row, and, with a constant argument, when the query is planned.
SETTING = """
CREATE ROLE author; CREATE ROLE rival; CREATE ROLE jobs IN ROLE author;
GRANT USAGE, CREATE ON SCHEMA public, lakets, lakets_cdf TO author, rival;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO author, rival;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA lakets TO author, rival;
CREATE TABLE seen (who text);
GRANT INSERT, SELECT ON seen TO PUBLIC;
CREATE TABLE m (id int, ts timestamptz, v int, PRIMARY KEY (id, ts));
ALTER TABLE m OWNER TO author;
INSERT INTO m VALUES (1, '2024-01-01 12:30+00', 5);
SELECT lakets.create_chronotable('m', 'ts', '1 day');
SET LOCAL ROLE author;
CREATE FUNCTION tell() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('tests.escape', true) = 'on' THEN
        BEGIN
            RESET ROLE;
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
    END IF;
    INSERT INTO public.seen VALUES (current_user);
END $$;
CREATE FUNCTION spy(x numeric) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM public.tell();
    RETURN x;
END $$;
"""
QUERY = (
    "SELECT lakets.time_bucket('1 hour', ts) AS bucket, sum(public.spy(v)) + public.spy(0) AS total"
    " FROM public.m GROUP BY 1"
)
ROWS = "SELECT total::int FROM _rollup_q ORDER BY bucket"


@pytest.fixture
def world(db: Sandbox) -> Sandbox:
    """Yield a database with a RollUp whose query returns its current role, and one new row."""
    db.run(SETTING)
    db.run(f"SELECT lakets.create_rollup('q', $q${QUERY}$q$, '1 hour')")
    db.run(
        "RESET ROLE; SET LOCAL tests.escape = on; DELETE FROM seen;"
        "INSERT INTO m VALUES (2, '2024-01-01 13:30+00', 7)"
    )
    return db


def act(db: Sandbox, role: str | None, statement: str) -> None:
    db.run(f"SET LOCAL ROLE {role}" if role else "RESET ROLE")
    db.run(statement)
    db.run("RESET ROLE")


@pytest.mark.parametrize("role", ["author", "jobs", None])
@pytest.mark.parametrize(
    "before",
    [
        pytest.param("SELECT", id="as-it-was"),
        pytest.param("ALTER TABLE m ALTER v TYPE numeric", id="redefined"),
        pytest.param("UPDATE lakets._rollup_registry SET definition = NULL", id="definition-lost"),
    ],
)
def test_a_refresh_runs_the_query_as_the_owner(world: Sandbox, role: str | None, before: str) -> None:
    world.run(before)

    act(world, role, "SELECT lakets.refresh_rollup('q', true)")

    assert world.column(ROWS) == [5, 7]
    assert set(world.column("SELECT who FROM seen")) == {"author"}


def install(db: Sandbox) -> None:
    """Install again, in the transaction of the test."""
    _, _, script = install_script().partition("BEGIN;\n")
    db.run(script.rpartition("COMMIT;")[0])


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("SELECT", id="again"),
        pytest.param(
            "DROP FUNCTION lakets._fill_q; UPDATE lakets._rollup_registry SET definition = NULL;"
            " SET LOCAL lakets.others = '{}'",  # what the migration from 0.1.x sets
            id="over-0.1.x",
        ),
    ],
)
def test_an_install_runs_nothing_of_the_query_as_anybody_else(world: Sandbox, before: str) -> None:
    world.run(before)

    install(world)

    assert set(world.column("SELECT who FROM seen")) <= {"author"}
    act(world, "jobs", "SELECT lakets.refresh_rollup('q', true)")
    assert world.column(ROWS) == [5, 7]
    assert set(world.column("SELECT who FROM seen")) == {"author"}


@pytest.mark.parametrize("definition", ["NULL", "definition"])
@pytest.mark.parametrize("function", [True, False], ids=["with a function", "without"])
def test_an_install_makes_no_rollup_of_a_row_that_somebody_wrote(
    world: Sandbox, definition: str, *, function: bool
) -> None:
    world.run("CREATE TABLE _rollup_prey (LIKE _rollup_q); ALTER TABLE _rollup_prey OWNER TO author")
    world.run("GRANT rival TO jobs")
    act(
        world,
        "rival",
        "INSERT INTO lakets._rollup_registry (name, rollup_table, query_text, window_query, definition,"
        " bucket_interval, bucket_column, source_time_column, source_chronotable_id) SELECT 'prey',"
        f" '_rollup_prey', query_text, window_query, {definition}, bucket_interval, bucket_column,"
        " source_time_column, source_chronotable_id FROM lakets._rollup_registry",
    )
    if function:
        written = world.value("SELECT pg_get_functiondef('lakets._fill_q'::regproc)")
        act(world, "rival", str(written).replace("_fill_q", "_fill_prey"))

    install(world)

    with world.refused("P0001", "was not confirmed by its owner"):
        act(world, "jobs", "SELECT lakets.refresh_rollup('prey', true)")
    world.run("RESET ROLE")
    assert world.value("SELECT count(*) FROM _rollup_prey") == 0
    assert world.column("SELECT who FROM seen") == []


@pytest.mark.parametrize(
    "forgery",
    [
        "UPDATE lakets._rollup_registry SET query_text = replace(query_text, 'sum(', 'max(')",
        "UPDATE lakets._rollup_registry SET window_query = replace(window_query, 'sum(', 'max(')",
        "UPDATE lakets._rollup_registry SET definition = NULL, query_text = 'SELECT 1'",
        "UPDATE lakets._rollup_registry SET window_query = NULL",
    ],
)
def test_a_query_written_into_the_registry_is_not_run(world: Sandbox, forgery: str) -> None:
    act(world, "rival", forgery)

    with world.refused("P0001", "was not made from its stored query"):
        act(world, "jobs", "SELECT lakets.refresh_rollup('q', true)")

    world.run("RESET ROLE")
    assert world.column(ROWS) == [5]
    assert world.column("SELECT who FROM seen") == []


def test_a_row_written_into_the_registry_makes_no_rollup_of_a_table(world: Sandbox) -> None:
    world.run("CREATE TABLE _rollup_prey AS SELECT now() AS bucket; ALTER TABLE _rollup_prey OWNER TO author")
    act(
        world,
        "rival",
        "INSERT INTO lakets._rollup_registry"
        " (name, rollup_table, query_text, bucket_interval, source_time_column) SELECT"
        " 'prey', '_rollup_prey', query_text, bucket_interval, source_time_column"
        " FROM lakets._rollup_registry",
    )

    with world.refused("P0001", "was not confirmed by its owner, and jobs does not own it"):
        act(world, "jobs", "SELECT lakets.refresh_rollup('prey', true)")

    world.run("RESET ROLE")
    assert world.value("SELECT count(*) FROM _rollup_prey") == 1


def test_nobody_else_may_fill_a_rollup(world: Sandbox) -> None:
    with world.refused("42501", "permission denied for function _fill_q"):
        act(world, "rival", "SELECT lakets._fill_q('-infinity', 'infinity', now(), now(), NULL, NULL)")


def test_a_new_owner_of_the_table_takes_the_query_over(world: Sandbox) -> None:
    world.run("GRANT author TO rival; ALTER TABLE _rollup_q OWNER TO rival")

    with world.refused("P0001", "was not confirmed by its owner, and jobs does not own it"):
        act(world, "jobs", "SELECT lakets.refresh_rollup('q', true)")
    act(world, "rival", "SELECT lakets.refresh_rollup('q', true)")

    assert world.column(ROWS) == [5, 7]
    assert set(world.column("SELECT who FROM seen")) == {"rival"}


@pytest.mark.parametrize(
    ("role", "error"),
    [("rival", "belongs to author, but its table to rival"), ("jobs", "not confirmed by its owner")],
)
def test_a_new_owner_who_is_no_member_of_the_earlier_one_learns_what_to_drop(
    world: Sandbox, role: str, error: str
) -> None:
    world.run("ALTER TABLE _rollup_q OWNER TO rival; GRANT rival TO jobs; GRANT SELECT ON m TO rival")

    with (
        pytest.raises(psycopg.errors.RaiseException, match=error) as told,
        world.undone(),
    ):
        act(world, role, "SELECT lakets.refresh_rollup('q', true)")

    hint = str(told.value.diag.message_hint)
    statement = hint[hint.index("DROP FUNCTION") : hint.index(". Refresh")]
    act(world, "author", statement)
    act(world, "rival", "SELECT lakets.refresh_rollup('q', true)")
    act(world, "jobs", "SELECT lakets.refresh_rollup('q', true)")
    assert world.column(ROWS) == [5, 7]


@pytest.mark.parametrize(
    "end",
    [
        "SELECT lakets.drop_rollup('q')",
        "SELECT lakets.drop_chronotable('m')",
        "DROP TABLE m; SELECT lakets.forget_chronotable('m')",
    ],
)
def test_nothing_is_left_of_the_function(world: Sandbox, end: str) -> None:
    world.run(end)

    assert world.value("SELECT to_regproc('lakets._fill_q')") is None


def test_columns_named_as_in_a_function_are_not_confused(world: Sandbox) -> None:
    world.run("ALTER TABLE m ADD lakets_strays int DEFAULT 3, ADD fresh int DEFAULT 4, ADD old int DEFAULT 5")

    world.run(
        "SELECT lakets.create_rollup('odd', 'SELECT lakets.time_bucket(''1 hour'', ts) AS bucket,"
        " sum(lakets_strays) AS lakets_strays, sum(fresh) AS fresh, sum(old) AS old"
        " FROM public.m GROUP BY 1', '1 hour')"
    )

    assert world.run("SELECT lakets_strays, fresh, old FROM _rollup_odd") == [(3, 4, 5), (3, 4, 5)]
