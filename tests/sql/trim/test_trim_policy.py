"""The policy that trims the shadow, and the view that still shows trimmed rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.engine import install_script

if TYPE_CHECKING:
    from tests.stage import HandFeed, Raises, Stage


# The policy


def time_index(stage: Stage) -> list[str]:
    return stage.column(
        "SELECT regexp_replace(indexdef, '.* USING ', '') FROM pg_indexes WHERE indexname LIKE '\\_time\\_%%'"
    )


def test_both_kinds_of_policy_may_ask_for_it(stage: Stage) -> None:
    stage.table("one")
    stage.table("two")
    stage.run("SELECT lakets.add_retention_policy('one', '1 day', p_trim_shadow => true)")
    stage.run("SELECT lakets.add_tiered_retention_policy('two', '1 day', '2 days', 'public', true)")

    assert stage.column("SELECT config ->> 'trim_shadow' FROM lakets._policy_registry") == ["true", "true"]


def test_a_policy_that_does_not_is_written_as_before(stage: Stage) -> None:
    stage.table()
    stage.run("SELECT lakets.add_retention_policy('metrics', '1 day')")

    assert stage.value("SELECT config FROM lakets._policy_registry") == {"drop_after": "1 day"}


@pytest.mark.parametrize("comes", ["sync", "policy"])
def test_the_shadow_gets_an_index_on_time_with_whichever_comes_last(stage: Stage, comes: str) -> None:
    stage.table()
    steps = [
        "SELECT lakets.enable_sync('metrics')",
        "SELECT lakets.add_retention_policy('metrics', '1 day', p_trim_shadow => true)",
    ]
    for step in steps if comes == "policy" else steps[::-1]:
        assert time_index(stage) == []
        stage.run(step)

    assert time_index(stage) == ["btree (at)"]


def test_the_index_goes_with_the_policy(stage: Stage, keyed: HandFeed) -> None:
    stage.run("SELECT lakets.remove_retention_policy('metrics')")

    assert time_index(stage) == []


@pytest.mark.parametrize("key", ["", ", PRIMARY KEY (at, id)"], ids=["keyless", "by time"])
def test_no_index_is_made_where_the_one_there_is_begins_with_the_time(stage: Stage, key: str) -> None:
    stage.run(f"CREATE TABLE metrics (id integer, at timestamptz{key})")
    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '1 day')")
    stage.run("SELECT lakets.enable_sync('metrics')")
    stage.run("SELECT lakets.add_retention_policy('metrics', '1 day', p_trim_shadow => true)")

    assert time_index(stage) == []


def test_an_install_over_the_older_signatures_leaves_no_choice(empty_database: str) -> None:
    older = """
        DROP TABLE lakets_cdf._trim_log;
        ALTER TABLE lakets._chunk_metadata DROP COLUMN trimmed_at;
        DELETE FROM lakets.migration WHERE name LIKE '0004%';
        CREATE FUNCTION lakets.add_retention_policy(
            p_table_name text, p_drop_after interval, p_schema_name text DEFAULT 'public'
        ) RETURNS integer LANGUAGE sql AS 'SELECT 1';
    """
    with psycopg.connect(empty_database, autocommit=True) as conn:
        for script in (install_script(), older, install_script()):
            conn.execute(script.encode())
        conn.execute("CREATE TABLE metrics (at timestamptz)")
        conn.execute("SELECT lakets.create_chronotable('metrics', 'at')")
        added = conn.execute("SELECT lakets.add_retention_policy('metrics', '1 day') > 0").fetchone()

    assert added == (True,)


# The view


@pytest.mark.parametrize(
    ("call", "condition", "said"),
    [
        ("'nowhere'", "P0001", "nowhere"),
        ("'metrics'", "P0001", "not synced"),
    ],
    ids=["unknown", "not synced"],
)
def test_a_view_wants_a_synced_table(
    stage: Stage, raises: Raises, call: str, condition: str, said: str
) -> None:
    stage.table()

    with raises(condition, match=said):
        stage.run(f"SELECT lakets.history_view_sql({call})")


def test_a_view_wants_a_schema_in_its_catalog(stage: Stage, keyed: HandFeed, raises: Raises) -> None:
    with raises("P0001", match="p_uc_schema"):
        stage.run("SELECT lakets.history_view_sql('metrics', p_catalog => 'main')")


@pytest.mark.parametrize(
    ("arguments", "view", "history"),
    [
        ("", "`metrics_history`", "`lb__shadow_metrics_history`"),
        (", p_uc_schema => 's'", "`s`.`metrics_history`", "`s`.`lb__shadow_metrics_history`"),
        (
            ", p_uc_schema => 's', p_catalog => 'c`d', p_view_name => 'v'",
            "`c``d`.`s`.`v`",
            "`c``d`.`s`.`lb__shadow_metrics_history`",
        ),
    ],
    ids=["where it runs", "schema", "catalog"],
)
def test_a_view_is_made_where_it_is_wanted(
    stage: Stage, keyed: HandFeed, arguments: str, view: str, history: str
) -> None:
    text = stage.value(f"SELECT lakets.history_view_sql('metrics'{arguments})")

    assert text.startswith(f"CREATE OR REPLACE VIEW {view} AS\n")
    assert f"FROM {history} AS entry" in text
