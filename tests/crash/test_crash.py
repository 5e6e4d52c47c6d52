"""
A job that is cut off by the end of its server leaves nothing that a rerun cannot finish.

Each job is stopped between any two of its statements, and in the middle of them, each time in a
database of its own. Then the server is killed, once for all of them, and each job is run again: all
that the database then holds is what it holds after a run that nobody disturbed.
"""

from __future__ import annotations

import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from airflow_provider_lakets.engine import install_script
from airflow_provider_lakets.hooks import lakets
from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
from tests.crash.server import SETTINGS, Job, Server
from tests.crash.state import difference, state
from tests.older import LAKETS_01

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from tests.crash.state import State

WORLD = Path(__file__).with_name("world.sql").read_text()
OLD_WORLD = [LAKETS_01, (Path(__file__).parents[1] / "sql" / "world_01.sql").read_text()]
STEPS = WORLD[WORLD.index("CREATE SCHEMA steps") : WORLD.index("-- The feed")]
STEP_AT_DDL = "CREATE EVENT TRIGGER steps ON ddl_command_start EXECUTE FUNCTION steps.at_ddl();"

# An install is one transaction of up to 1,400 steps: about every tenth is enough.
MOST_STEPS = 150
AT_ONCE = 70  # so many sessions the server takes at a time, and two for each


class Case(NamedTuple):
    """A job, its database, what was done there before, and the result after so many runs."""

    work: Callable[[LakeTSHook], object]
    template: str = "world"
    prepare: str = ""
    leaves: tuple[str, ...] = ()
    runs: int = 1


def sync_both(hook: LakeTSHook) -> None:
    hook.enable_sync("plain")
    hook.enable_sync("daily_metrics")


def repair(hook: LakeTSHook) -> None:
    """Notice what no trigger saw, compare the mirror, flag what is durable, aggregate again."""
    hook.partition(range_start=day(1), range_end=day(6))
    hook.tier(candidate.chunk_name for candidate in hook.tier_candidates())
    hook.refresh(parallelism=1)


def day(number: int) -> datetime:
    return datetime(2024, 1, number, tzinfo=timezone.utc)


WRITE = (
    "UPDATE {0} SET value = value + 1 WHERE id % 3 = 0; DELETE FROM {0} WHERE id = 8;"
    " UPDATE {0} SET at = at + interval '1 day' WHERE id = 7;"
    " INSERT INTO {0} VALUES (99, '2024-01-08 12:00', 99);"
)

# Two tables, one without a key, are trimmed three rows at a time, so that it takes several
# transactions. A chunk is gone before, and a row came late for it.
TRIM = """
DO $$ BEGIN
    EXECUTE replace(pg_get_functiondef('lakets.trim_shadow'::regproc), 'DEFAULT 10000', 'DEFAULT 3');
END $$;
UPDATE wal2delta.tables SET committed_lsn = 'FFFFFFFF/0';
SELECT lakets.remove_retention_policy('metrics', nsp),
       lakets.add_tiered_retention_policy('metrics', '1 day', '2 days', nsp, p_trim_shadow => true),
       lakets.execute_retention('metrics', nsp, p_max_chunks => 1)
  FROM (VALUES ('public'), ('The Plant')) AS t (nsp);
INSERT INTO metrics VALUES (98, '2024-01-01 12:00', 98);
INSERT INTO "The Plant".metrics VALUES (98, '2024-01-01 12:00', 98);
"""
# Wrong values in the RollUps without a logged change: only marked buckets are aggregated again.
SPOIL = "".join(
    f"UPDATE _rollup_{name} SET total = -1;" for name in ("hourly_metrics", "daily_plain", "daily_metrics")
)

TIERED, DROPPED, FENCED = "('status', 'tiered')", "('status', 'dropped')", "('fenced', True)"

CASES = {
    "partition": Case(
        lambda hook: hook.partition(range_start=day(1), range_end=day(10)),
        prepare=WRITE.format("metrics") + WRITE.format("plain"),
    ),
    "tier": Case(
        lambda hook: hook.tier(candidate.chunk_name for candidate in hook.tier_candidates()),
        prepare="SELECT lakets.tier_chunk('public.metrics_20240102_000000');" + WRITE.format("metrics"),
        leaves=(TIERED, FENCED),
    ),
    "retain": Case(
        lambda hook: [hook.retain(table) for table in ("metrics", "plain", "The Plant.metrics")],
        leaves=(DROPPED, FENCED),
    ),
    "refresh": Case(
        lambda hook: hook.refresh(parallelism=1),
        prepare=WRITE.format("metrics") + WRITE.format("plain"),
    ),
    "retain-and-trim": Case(
        lambda hook: [hook.retain(table) for table in ("metrics", "The Plant.metrics")],
        prepare=TRIM,
        runs=2,  # the next run forgets what a run notes of its trims in the change log
        leaves=(DROPPED, "('row_count', 3), ('shadow', '_shadow_metrics')"),
    ),
    "refresh-of-a-range": Case(
        lambda hook: hook.refresh(parallelism=1, start=day(2), end=day(5)),
        prepare=SPOIL,
    ),
    "refresh-beside-dropped-chunks": Case(
        lambda hook: hook.refresh(parallelism=1),
        prepare="SELECT lakets.execute_retention('plain', p_max_chunks => 2);" + WRITE.format("plain"),
        leaves=(DROPPED,),
    ),
    "sync": Case(
        sync_both,
    ),
    "repair": Case(
        lambda hook: hook.enable_sync("torn"),
        prepare="DELETE FROM lakets_cdf._shadow_torn WHERE id < 3; UPDATE torn SET value = -1 WHERE id < 5;"
        " ALTER TABLE torn ADD COLUMN more text; UPDATE torn SET more = 'x' WHERE id > 9",
    ),
    "rewritten-values": Case(
        repair,
        prepare="ALTER TABLE metrics ALTER value TYPE integer USING value * 2",
        runs=3,  # one notes the doubt, one compares, one flags
        leaves=(TIERED, FENCED),
    ),
    "triggers-off": Case(
        repair,
        prepare="ALTER TABLE metrics DISABLE TRIGGER ALL;"
        + WRITE.format("metrics")
        + "ALTER TABLE metrics ENABLE TRIGGER ALL",
        runs=3,
        leaves=(TIERED, FENCED),
    ),
    "install": Case(lambda hook: hook.install(), template="bare"),
    "install-again": Case(lambda hook: hook.install()),
    "install-over-0.1": Case(lambda hook: hook.install(), template="old_world"),
}


@pytest.fixture(scope="module")
def server(postgres_version: int) -> Iterator[Server]:
    """Start a server that may be killed: the shared one serves other tests too."""
    with (
        tempfile.TemporaryDirectory(prefix="lakets-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres(Path(folder) / "pg", version=postgres_version, settings=SETTINGS) as postgres,
    ):
        server = Server(postgres)
        server.template("bare", STEPS, STEP_AT_DDL)
        server.template("old_world", *OLD_WORLD, STEPS, STEP_AT_DDL)
        server.template("world", install_script(), WORLD, "SELECT lakets.refresh_rollup_cascade()")
        yield server


class Run(NamedTuple):
    """The result of an undisturbed run of a job."""

    statements: int
    steps: int
    end: State


def undisturbed(server: Server, case: Case) -> Run:
    database = server.database(case.template, case.prepare)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("SELECT setval('steps.taken', 1, false)")
    job = Job(database, case.work).start()
    job.end()
    assert job.error is None
    with psycopg.connect(database, autocommit=True) as conn:
        row = conn.execute("SELECT last_value - (NOT is_called)::integer FROM steps.taken").fetchone()
    assert row is not None
    for _ in range(1, case.runs):
        Job(database, case.work).start().end()
    run = Run(job.sent, row[0], state(database))
    assert [mark for mark in case.leaves if mark not in str(run.end)] == []
    server.drop(database)
    return run


class Cut(NamedTuple):
    """A job that stands, the case it is of, and what its database held by then."""

    name: str
    job: Job
    database: str
    before: State | None


def cut(server: Server, name: str, **where: int) -> Cut:
    case = CASES[name]
    database = server.database(case.template, case.prepare)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("SELECT setval('steps.taken', 1, false)")
    job = Job(database, case.work, **where).start()
    # In the middle of a statement tables may be locked.
    return Cut(name, job, database, None if "step" in where else state(database))


def spread(total: int, most: int | None) -> list[int]:
    """Return at most this many numbers from 1 to total, evenly spaced."""
    if most is None or total <= most:
        return list(range(1, total + 1))
    return sorted({round((n + 0.5) * total / most + 0.5) for n in range(most)})


def kill_everywhere(server: Server, names: list[str], *, statements: int | None, steps: int | None) -> None:
    runs = {name: undisturbed(server, CASES[name]) for name in names}
    places: list[tuple[str, dict[str, int]]] = []
    for name, run in runs.items():
        assert run.statements > 0
        assert run.steps > 0
        places += [(name, {"statement": number}) for number in spread(run.statements, statements)]
        places += [(name, {"step": number}) for number in spread(run.steps, steps)]
    for first in range(0, len(places), AT_ONCE):
        cuts = [cut(server, name, **where) for name, where in places[first : first + AT_ONCE]]
        server.kill()
        for stopped in cuts:
            stopped.job.end()
        server.restart()
        for stopped in cuts:
            check(server, stopped, runs[stopped.name])


def check(server: Server, stopped: Cut, run: Run) -> None:
    where = f"{stopped.name}, statement {stopped.job.sent} of {run.statements}, step {stopped.job.step}"
    if stopped.before is not None:
        lost = difference(stopped.before, state(stopped.database))
        assert lost == [], f"changed by the crash: {where}: {lost[:3]}"
    for _ in range(CASES[stopped.name].runs):
        again = Job(stopped.database, CASES[stopped.name].work).start()
        again.end()
        assert again.error is None, where
    other = difference(run.end, state(stopped.database))
    assert other == [], f"{where}: {other[:3]}"
    server.drop(stopped.database)


def test_a_job_cut_off_by_a_crash_is_made_good_by_the_next_run(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lakets, "DROP_BATCH", 2)  # so that retention takes several statements
    kill_everywhere(server, list(CASES), statements=1, steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_job_cut_off_anywhere_is_made_good_by_the_next_run(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(lakets, "DROP_BATCH", 1)
    kill_everywhere(server, [name], statements=None, steps=MOST_STEPS)
