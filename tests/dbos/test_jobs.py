"""The four jobs without Airflow, as a DBOS program that is killed and started again."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from dbos import DBOSClient

from airflow_provider_lakets.dbos import create_lakebase_engine
from airflow_provider_lakets.hooks.lakets import LakeTSHook
from tests.lakes import new_lake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psycopg

    from airflow_provider_lakets.local.client import LocalServer

# More tables than one step makes chunks for; the chunk of the last one takes its time.
TABLES = """
DO $$ BEGIN
    FOR n IN 1..22 LOOP
        EXECUTE format('CREATE TABLE t%s (ts timestamptz NOT NULL)', n);
        EXECUTE format('ALTER TABLE t%s OWNER TO %I', n, '{owner}');
        PERFORM lakets.create_chronotable('t' || n, 'ts', '1 day');
    END LOOP;
    UPDATE lakets._chronotable_registry SET chunk_interval = '30 days';
END $$;
CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_catalog.pg_sleep(3); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON lakets._chunk_metadata FOR EACH ROW
WHEN (NEW.chunk_name LIKE 'public.t22%') EXECUTE FUNCTION public.slow();
"""


@pytest.fixture(scope="module")
def lake(postgres_version: int) -> Iterator[LocalServer]:
    """Start a separate Lakebase, because a program runs in the other one."""
    with new_lake(postgres_version) as server:
        yield server


@pytest.fixture
def hook(
    lake: LocalServer, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LakeTSHook]:
    """Yield a hook on a database with LakeTS; the test's objects are dropped at the end."""
    for name in ("LAKETS_LAKEBASE_ENDPOINT", "PGPORT"):
        monkeypatch.setenv(name, lake.env()[name])
    monkeypatch.setenv("DATABRICKS_LAKEBASE_ENDPOINT", lake.state.endpoint)
    hook = LakeTSHook()
    hook.install()
    yield hook
    admin.execute(
        "DROP TRIGGER IF EXISTS slow ON lakets._chunk_metadata; DROP FUNCTION IF EXISTS public.slow()"
    )
    admin.execute("SELECT lakets.drop_chronotable(reg.table_name) FROM lakets._chronotable_registry AS reg")
    admin.execute("DROP SCHEMA IF EXISTS dbos CASCADE")


@pytest.fixture
def client(hook: LakeTSHook) -> Iterator[DBOSClient]:
    engine = create_lakebase_engine()
    client = DBOSClient(system_database_engine=engine)
    yield client
    client.destroy()
    engine.dispose()


@pytest.fixture
def program(hook: LakeTSHook, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Yield a function that starts `lakets run --with dbos`, which is killed at the end."""
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((tmp_path / "program.log").open("wb"))

        def start() -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "airflow_provider_lakets", "run", "--with", "dbos"]
            process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
            stack.callback(process.kill)
            return process

        yield start


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for a value, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):  # the program has not made its tables yet
            if found := what():
                return found
        time.sleep(0.1)
    raise AssertionError(f"{what} came to nothing")


def result(client: DBOSClient, workflow: str) -> Any:
    """Return the result of a workflow; fail if it does not end."""
    until(lambda: client.retrieve_workflow(workflow).get_status().status not in ("ENQUEUED", "PENDING"))
    return client.retrieve_workflow(workflow).get_result()


def steps(client: DBOSClient, workflow: str) -> list[str]:
    return [step["function_name"] for step in client.list_workflow_steps(workflow)]


@pytest.mark.slow
def test_all_four_jobs_run_on_schedules_and_can_be_started_at_once(
    hook: LakeTSHook, client: DBOSClient, program: Callable[[], subprocess.Popen[bytes]]
) -> None:
    hook.run("CREATE TABLE metrics (ts timestamptz NOT NULL, value float8)")
    hook.create_chronotable("metrics", "ts", chunk_interval="1 day")
    query = "SELECT lakets.time_bucket('1 day', ts) AS bucket, sum(value) AS value FROM metrics GROUP BY 1"
    hook.create_rollup("daily", query, bucket_interval="1 day")
    hook.run("INSERT INTO metrics VALUES (now(), 1); SELECT lakets.set_chunk_interval('metrics', '30 days')")

    process = program()
    schedules = until(lambda: len(client.list_schedules()) == 4 and client.list_schedules())
    done = {
        job: result(client, client.trigger_schedule(f"lakets_{job}").get_workflow_id())
        for job in ("partitions", "tier", "retain", "refresh")
    }
    process.terminate()

    assert {one["schedule_name"]: one["schedule"] for one in schedules} == {
        "lakets_partitions": "0 */6 * * *",
        "lakets_tier": "0 2 * * *",
        "lakets_retain": "0 3 * * *",
        "lakets_refresh": "*/15 * * * *",
    }
    assert done == {"partitions": {"created": 1}, "tier": {}, "retain": {}, "refresh": {"refreshed": 1}}
    assert hook.get_first("SELECT sum(value) FROM _rollup_daily") == (1.0,)
    assert process.wait(timeout=60) == 0


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on_at_the_step_it_was_in(
    lake: LocalServer,
    admin: psycopg.Connection,
    client: DBOSClient,
    program: Callable[[], subprocess.Popen[bytes]],
) -> None:
    admin.execute(TABLES.replace("{owner}", lake.state.owner.client_id).encode())
    process = program()
    until(lambda: len(client.list_schedules()) == 4)

    workflow = client.trigger_schedule("lakets_partitions").get_workflow_id()
    until(lambda: steps(client, workflow) == ["tables", "make chunks"])
    process.kill()
    process.wait()
    program()

    # What the second step had done before is there; the first one's tables were not looked at
    # again.
    done: dict[str, int] = result(client, workflow)
    assert sum(done.values()) == 22
    assert done["created"] >= 20
    assert steps(client, workflow) == ["tables", "make chunks", "make chunks"]
