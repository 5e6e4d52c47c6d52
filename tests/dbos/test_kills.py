"""Kill -9 of program, sessions and server under load: each step is in the table once."""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from dbos import DBOSClient
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_lakets.dbos import create_lakebase_engine
from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
from airflow_provider_lakets.local.processes import is_alive
from tests.dbos.conftest import App, make_tables, session_url, wait_until
from tests.lakes import new_lake
from tests.superuser import superuser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_lakets.local.client import LocalServer

WORKFLOWS, STEPS = 6, 8
KILLED = (("program",), ("session",), ("server", "program"), ("server",), ("session", "program"))


@pytest.fixture(scope="module")
def lake(postgres_version: int) -> Iterator[LocalServer]:
    """Start a separate Lakebase, because all of its sessions are cut."""
    with new_lake(postgres_version) as server:
        yield server


class Server:
    """
    The Postgres of a local Lakebase, without the proxy.

    :param lake: Where.
    :param version: Of Postgres.
    """

    def __init__(self, lake: LocalServer, version: int) -> None:
        self._conninfo = superuser(lake)
        self._postgres = EmbeddedPostgres(lake.folder / "pg", version=version)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Wait for the server, and return the rows of a query."""
        found: list[list[tuple[Any, ...]]] = []

        def asked() -> bool:
            try:
                with psycopg.connect(self._conninfo, autocommit=True) as conn:
                    found.append(conn.execute(query.encode()).fetchall())
            except psycopg.OperationalError:
                return False
            return True

        wait_until(asked, "the server answers")
        return found[0]

    def kill(self) -> None:
        """Kill the postmaster with -9, and start the server again: it recovers from its log."""
        pid = int((self._postgres.data_dir / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), "the server is dead")
        self.stop()
        self._postgres.start()

    def stop(self) -> None:
        """Stop the server, if it was started here."""
        self._postgres.stop()

    def kill_session(self) -> None:
        """Kill a session of the program with -9: Postgres ends all, and recovers from its log."""
        query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'dbos_transact%' LIMIT 1"
        for (pid,) in self.ask(query):
            os.kill(pid, signal.SIGKILL)

    def entries(self) -> int:
        return int(self.ask("SELECT count(*) FROM app.effects")[0][0])

    def has(self, entries: int) -> bool:
        return self.entries() >= entries


@pytest.fixture(scope="module")
def postgres(lake: LocalServer, postgres_version: int) -> Iterator[Server]:
    server = Server(lake, postgres_version)
    yield server
    server.stop()


@pytest.fixture
def server(lake: LocalServer, postgres: Server) -> Server:
    with psycopg.connect(superuser(lake), autocommit=True) as conn:
        conn.execute("DROP SCHEMA IF EXISTS app CASCADE")
        make_tables(conn, lake)
    return postgres


def patiently(what: Callable[[], Any]) -> Any:
    """Wait until the server answers, and return the result."""
    found: list[Any] = []

    def done() -> bool:
        try:
            found.append(what())
        except (SQLAlchemyError, LakeTSError, psycopg.OperationalError):
            return False
        return True

    wait_until(done, "the server answers")
    return found[0]


def enqueue(client: DBOSClient, workflow_id: str) -> str:
    """Start a workflow of many steps; its id makes it safe to try again."""
    options: Any = {"workflow_name": "enter_all", "queue_name": "orders", "workflow_id": workflow_id}
    patiently(partial(client.enqueue, options, workflow_id, STEPS))
    return workflow_id


def has_succeeded(client: DBOSClient, workflow_id: str) -> bool:
    status = patiently(client.retrieve_workflow(workflow_id).get_status).status
    assert status in ("ENQUEUED", "PENDING", "SUCCESS")
    return bool(status == "SUCCESS")


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_whatever_is_killed_each_step_is_done_once(lake: LocalServer, server: Server, rounds: int) -> None:
    chance = random.Random(rounds)
    engine = create_lakebase_engine(session_url(lake), pool_size=2)
    client = DBOSClient(system_database_engine=engine, dbos_system_schema=f"kills_{rounds}")
    app = App(lake, session_url(lake), f"kills_{rounds}")
    app.start()
    ids: list[str] = []
    try:
        for number in range(rounds):
            enough = server.entries() + chance.randrange(1, WORKFLOWS * STEPS - 5)
            ids += [enqueue(client, f"{number}-{place}") for place in range(WORKFLOWS)]
            wait_until(partial(server.has, enough), "it is in the middle")
            killed = KILLED[number % len(KILLED)]
            if "session" in killed:
                server.kill_session()
            if "server" in killed:
                server.kill()
            if "program" in killed:
                app.kill()
                app.start()
        for one in ids:
            wait_until(partial(has_succeeded, client, one), f"{one} has succeeded")
    finally:
        app.kill()
        client.destroy()
        engine.dispose()

    done = server.ask("SELECT name, array_agg(step ORDER BY step) FROM app.effects GROUP BY name")
    assert dict(done) == {one: [*range(1, STEPS + 1)] for one in ids}
