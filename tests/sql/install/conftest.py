"""Fixtures of the install tests: databases that were used with 0.1.x."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.sql.install.scene import HERE, install

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres


@pytest.fixture(scope="package")
def old_world(postgres: EmbeddedPostgres, template_01: str) -> str:
    """Return the name of a database that was used with 0.1.x, for cloning."""
    name = "lakets_01_world"
    with psycopg.connect(postgres.ensure_database(name, template=template_01), autocommit=True) as conn:
        conn.execute((HERE / "world_01.sql").read_text().encode())
    return name


@pytest.fixture
def older(postgres: EmbeddedPostgres, old_world: str) -> Iterator[str]:
    """Yield the conninfo of a database that was used with 0.1.x."""
    yield postgres.ensure_database("older", template=old_world)
    postgres.drop_database("older")


@pytest.fixture(scope="package")
def upgraded_world(postgres: EmbeddedPostgres, old_world: str) -> str:
    install(postgres.ensure_database("lakets_upgraded", template=old_world))
    return "lakets_upgraded"


@pytest.fixture
def upgraded(postgres: EmbeddedPostgres, upgraded_world: str) -> Iterator[psycopg.Connection]:
    """Yield a session on such a database after our install."""
    with psycopg.connect(
        postgres.ensure_database("upgraded", template=upgraded_world), autocommit=True
    ) as conn:
        conn.execute("SET client_min_messages = error")
        yield conn
    postgres.drop_database("upgraded")
