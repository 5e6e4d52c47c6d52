"""One real Postgres server per test process, one database per test."""

from __future__ import annotations

import atexit
import contextlib
import gc
import itertools
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
from tests.copies import Copies
from tests.scratch import use_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ["tests.demo", "tests.lab", "tests.pauses", "tests.stage"]

use_memory()

# A collection walks over all of Airflow: fewer of them. gc.freeze() would hide who refers to what,
# which hypothesis asks for.
gc.set_threshold(100_000, 20, 20)

# Variables of the user's shell about other servers and proxies must not affect the tests.
for name in [*os.environ]:
    if name.startswith(("AIRFLOW_", "DATABRICKS_", "PG")) or name.lower().endswith("_proxy"):
        del os.environ[name]

# Airflow reads this when it is first imported: a home of its own for each test process, never the
# user's.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="lakets-airflow-")
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{os.environ['AIRFLOW_HOME']}/airflow.db"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)

POSTGRES_VERSION = int(os.environ.get("LAKETS_TEST_POSTGRES", "16"))

# Tests throw the cluster away: it need not survive a power cut, only be as strict as the real one.
THROWAWAY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # To drop a database waits for a checkpoint, and that for the pauses of the one before.
    "checkpoint_completion_target": "0",
    "max_prepared_transactions": "8",
}

DAY = 86_400.0  # seconds
LONGEST_TEST = 60.0  # of those that are not slow

_numbers = itertools.count()


@contextlib.contextmanager
def new_postgres(**settings: str) -> Iterator[EmbeddedPostgres]:
    """Run a server of the version that is tested, with further settings."""
    # A short path: a Unix socket's name is limited to 107 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="lakets-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres(
            Path(folder) / "pg", version=POSTGRES_VERSION, settings=THROWAWAY | settings
        ) as server,
    ):
        yield server


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that use the shared server, so that the others can be selected."""
    if "postgres" in getattr(item, "fixturenames", ()):
        item.add_marker("postgres")


@pytest.hookimpl(tryfirst=True)  # before the fixtures of the test
def pytest_runtest_setup() -> None:
    """Wait for the next day (of UTC) if this one ends soon: rows and chunks count from today."""
    left = DAY - time.time() % DAY
    if left < LONGEST_TEST:
        time.sleep(left + 0.1)


def pytest_report_header() -> str:
    return f"postgres: {POSTGRES_VERSION} (embedded; LAKETS_TEST_POSTGRES=16|17|18)"


@pytest.fixture(scope="session")
def postgres_version() -> int:
    """Return the Postgres major version to test on."""
    return POSTGRES_VERSION


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """Start one server for the whole session: a start costs more than most tests."""
    with new_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """Install LakeTS once; tests clone this database, which costs a tenth of installing."""
    from airflow_provider_lakets.engine import install_script

    name = "lakets_template"
    with psycopg.connect(postgres.ensure_database(name), autocommit=True) as conn:
        conn.execute(install_script())
    return name


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again without waiting."""
    import tenacity

    from airflow_provider_lakets.login import login_error, rest

    monkeypatch.setitem(login_error.RETRY_POLICY, "wait", tenacity.wait_none())
    monkeypatch.setattr(rest, "_backoff", tenacity.wait_none())


@pytest.fixture
def empty_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """Yield the conninfo of a database without LakeTS."""
    name = f"empty_{next(_numbers)}"
    yield postgres.ensure_database(name)
    postgres.drop_database(name)


@pytest.fixture
def database(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """Yield the conninfo of a fresh database with LakeTS installed."""
    name = f"test_{next(_numbers)}"
    yield postgres.ensure_database(name, template=template)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def copies(postgres: EmbeddedPostgres) -> Iterator[Copies]:
    """Yield the copies of common states, which the tests of a module share."""
    with psycopg.connect(postgres.conninfo(), autocommit=True) as admin:
        copies = Copies(admin)
        yield copies
        copies.close()


@pytest.fixture(scope="session")
def lab_copies(postgres: EmbeddedPostgres) -> Iterator[Copies]:
    """Yield the copies of labs, which all tests share: they are named by their templates."""
    with psycopg.connect(postgres.conninfo(), autocommit=True) as admin:
        copies = Copies(admin)
        yield copies
        copies.close()


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection]:
    """Yield an autocommit session on the test's own database."""
    with psycopg.connect(database, autocommit=True) as session:
        yield session


@pytest.fixture
def connect(database: str) -> Iterator[Callable[[], psycopg.Connection]]:
    """Yield a factory of further autocommit sessions, closed when the test ends."""
    opened: list[psycopg.Connection] = []

    def factory() -> psycopg.Connection:
        opened.append(psycopg.connect(database, autocommit=True))
        return opened[-1]

    yield factory
    for session in opened:
        session.close()
