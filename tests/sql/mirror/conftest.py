"""Fixtures of the mirror tests: a database with a table of each shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.sandbox import Sandbox
from tests.sql.mirror.scene import SHAPES, mirror, shaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres


@pytest.fixture(scope="package")
def shapes(postgres: EmbeddedPostgres, template: str) -> Iterator[psycopg.Connection]:
    """Yield a session with a synced ChronoTable of each shape, in a schema named after it."""
    name = "lakets_shapes"
    with psycopg.connect(postgres.ensure_database(name, template=template), autocommit=True) as session:
        session.execute("SET client_min_messages = error")
        for shape in SHAPES:
            session.execute("SELECT set_config('search_path', quote_ident(%s), false)", [shape])
            mirror(Sandbox(session, shape), shape)
        yield session
    postgres.drop_database(name)


@pytest.fixture(params=SHAPES)
def mirrored(shapes: psycopg.Connection, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Yield a database with a synced ChronoTable of some shape that holds rows."""
    with shapes.transaction(force_rollback=True):
        yield shaped(shapes, request.param)


@pytest.fixture(params=["key", "no key"])
def either(shapes: psycopg.Connection, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Yield the same, but only with a plain key or none."""
    with shapes.transaction(force_rollback=True):
        yield shaped(shapes, request.param)
