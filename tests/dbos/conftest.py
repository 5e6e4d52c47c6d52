"""DBOS programs on the local Lakebase, through its front door: TLS, OAuth, minted credentials."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from airflow_provider_lakets.local.client import LocalServer
from tests.superuser import superuser

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count()


@pytest.fixture(scope="session")
def lake(postgres_version: int) -> Iterator[LocalServer]:
    """Start one local Lakebase for the whole session."""
    # A short path: a Unix socket's name is limited to 107 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="dbos-", ignore_cleanup_errors=True) as folder,
        LocalServer(Path(folder), version=postgres_version, feed_interval=30) as server,
    ):
        yield server


@pytest.fixture(autouse=True)
def environment(lake: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment be that of a program of the owner's: the identity, and nothing of the place."""
    for name, value in lake.env().items():
        monkeypatch.setenv(name, value)
    for name in ("LAKETS_LAKEBASE_ENDPOINT", "PGPORT", "DBOS_SYSTEM_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DATABRICKS_LAKEBASE_ENDPOINT", raising=False)


@pytest.fixture
def url(lake: LocalServer) -> str:
    """Return the connection string as the console of a Lakebase shows it."""
    state = lake.state
    return f"postgresql://{state.owner.client_id}@127.0.0.1:{state.port}/databricks_postgres?sslmode=require"


@pytest.fixture
def admin(lake: LocalServer) -> Iterator[psycopg.Connection]:
    """Yield a session of the superuser, past the front door."""
    with psycopg.connect(superuser(lake), autocommit=True) as conn:
        yield conn


@pytest.fixture
def native_url(lake: LocalServer, admin: psycopg.Connection) -> Iterator[str]:
    """Yield the connection string of a role with a native password that is special in a URL."""
    role = f"native_{next(_numbers)}"
    admin.execute(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal("p@ss/word"))
    )
    yield f"postgresql://{role}:p%40ss%2Fword@127.0.0.1:{lake.state.port}/databricks_postgres?sslmode=require"
    admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
