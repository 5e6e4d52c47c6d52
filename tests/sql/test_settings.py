"""Session settings change neither the result nor the effects of any function."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.sql.calls import CALLS
from tests.sql.world import FUNCTIONS, World, fill, world_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

# Each value of each setting at least once, as they may meet.
SESSIONS: dict[str, dict[str, str]] = {
    "India": {
        "datestyle": "SQL, DMY",
        "intervalstyle": "sql_standard",
        "timezone": "Asia/Kolkata",
        "extra_float_digits": "-15",
        "quote_all_identifiers": "on",
        "array_nulls": "off",
    },
    "New York": {
        "datestyle": "Postgres, MDY",
        "intervalstyle": "postgres_verbose",
        "timezone": "America/New_York",
        "extra_float_digits": "0",
        "standard_conforming_strings": "off",
        "escape_string_warning": "off",
        "transform_null_equals": "on",
        "bytea_output": "escape",
    },
    "Apia": {"datestyle": "German", "intervalstyle": "iso_8601", "timezone": "Pacific/Apia"},
    "in parallel": {"debug_parallel_query": "on"},
    "Pago Pago, replica": {"timezone": "Pacific/Pago_Pago", "session_replication_role": "replica"},
    "hostile": {"search_path": "evil, pg_catalog", "extra_float_digits": "3"},
}


@pytest.fixture(scope="module")
def world(postgres: EmbeddedPostgres, template: str) -> Iterator[World]:
    with world_of(postgres, template, "lakets_settings") as made:
        yield made


@pytest.fixture
def functions(world: World) -> dict[str, bool]:
    """Return the functions that LakeTS offers, and whether they may change something."""
    return dict(world.conn.execute(FUNCTIONS.encode()).fetchall())


def test_every_function_that_lakets_offers_has_a_call(functions: dict[str, bool]) -> None:
    assert set(CALLS) == set(functions)


@pytest.mark.parametrize("function", CALLS, ids=lambda name: re.sub(r"[ ,]", "-", name))
def test_function_gives_and_leaves_the_same_in_every_session(
    world: World, functions: dict[str, bool], function: str
) -> None:
    calls = fill(CALLS[function], world.values)
    found: dict[str, tuple[Any, ...]] = {}
    with world.conn.transaction(force_rollback=True):  # one now() for all
        expected = world.call(calls, {}, changes=functions[function])
        for session, settings in SESSIONS.items():
            found[session] = world.call(calls, settings, changes=functions[function])

    for session, (rows, state) in found.items():
        assert rows == expected[0], session
        assert (list(state - expected[1]), list(expected[1] - state)) == ([], []), session
