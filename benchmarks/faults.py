"""
How the jobs handle each fault of a local Lakebase, and how fast: ``python -m benchmarks.faults``.

Each job is an operator that really logs in, with the fault on. Prints the table that docs/local.md
quotes; ``--write`` puts it there. Fails when a token or a secret shows in a log or in an error.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo

from airflow_provider_lakets.local.api.faults import FaultName
from airflow_provider_lakets.local.client import LocalServer
from airflow_provider_lakets.local.feed import control
from benchmarks.document import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCUMENT = "local.md"

CHUNK = "public.metrics_20200101_000000"
TABLE = """
SELECT lakets.drop_chronotable('metrics') FROM lakets._chronotable_registry;
CREATE TABLE metrics (ts timestamptz NOT NULL, value float8);
INSERT INTO metrics VALUES ('2020-01-01', 1);
SELECT lakets.create_chronotable('metrics', 'ts', '1 day');
SELECT lakets.enable_sync('metrics');
SELECT lakets.add_tiered_retention_policy('metrics', '30 days', '60 days');
"""


@dataclass
class Stage:
    """
    A Lakebase with one table that has one cold chunk.

    :param said: The file for all output and logs, and for each error with its causes.
    """

    server: LocalServer
    said: IO[str]

    @property
    def superuser(self) -> str:
        return make_conninfo(
            host=str(self.server.folder / "pg"), port=5432, dbname="databricks_postgres", user="postgres"
        )

    def execute(self, script: str) -> None:
        with self.server.connect() as conn:
            conn.execute(script)

    def flush(self) -> None:
        control.wait_flushed(self.superuser, 60)

    def ensure(self) -> Any:
        """Run the partition manager."""
        from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator

        return LakeTSPartitionOperator(task_id="partitions").execute(_context())

    def tier(self) -> str:
        """Try to flag the chunk."""
        from airflow_provider_lakets.operators.tiering import LakeTSTierOperator

        (result,) = LakeTSTierOperator(task_id="tier", chunks=[CHUNK]).execute(_context())
        return str(result["outcome"])

    def retain(self) -> str:
        """Try to drop the chunk."""
        from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator

        return str(LakeTSRetentionOperator(task_id="retain", table="metrics").execute(_context())["outcome"])


def _context() -> Any:
    from airflow.sdk.execution_time.context import OutletEventAccessors

    return {
        "ti": SimpleNamespace(try_number=1, map_index=-1, xcom_push=lambda **_: None),
        "dag_run": SimpleNamespace(start_date=None),
        "outlet_events": OutletEventAccessors(),
    }


# The result of a job, and how many seconds it took.
Outcome = tuple[str, float]


def _login(stage: Stage, _: FaultName) -> Outcome:
    """Run a job that has to log in first."""
    started = time.monotonic()
    try:
        stage.ensure()
    except Exception as err:
        stage.said.write("".join(traceback.format_exception(err)))
        is_final = type(err).__name__ == "AirflowFailException"
        kind = type((is_final and err.__cause__) or err).__name__
        verdict = "fails for good" if is_final else "fails, Airflow retries"
        return f"{verdict}: `{kind}`", time.monotonic() - started
    return "succeeds", time.monotonic() - started


def _in_the_middle(stage: Stage, fault: FaultName) -> Outcome:
    """Cause a fault while the statement of a job waits for a lock."""
    outcomes: list[Outcome] = []
    job = threading.Thread(target=lambda: outcomes.append(_login(stage, fault)))
    with psycopg.connect(stage.superuser) as admin:
        admin.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
        job.start()
        while admin.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is None:
            time.sleep(0.01)
        stage.server.fault(fault)
        struck = time.monotonic()
    job.join()
    return outcomes[0][0], time.monotonic() - struck


def _feed(stage: Stage, fault: FaultName) -> Outcome:
    """Run the jobs that need a proof, then clear the fault and wait until the chunk is flagged."""
    _have_something_unflushed(stage, fault)
    started = time.monotonic()
    outcomes = f"tiering: {stage.tier()}, retention: {stage.retain()}"
    took = time.monotonic() - started
    mended = time.monotonic()
    stage.server.clear_faults()
    while (after := stage.tier()) != "tiered" and time.monotonic() < mended + 60:
        time.sleep(0.1)
    return f"{outcomes}; mended: {after} after {time.monotonic() - mended:.1f} s", took


@dataclass(frozen=True)
class Scenario:
    """
    A fault, and a job that runs with it.

    :param how: The options of the fault, for the table.
    """

    fault: FaultName
    job: Callable[[Stage, FaultName], Outcome] = _login
    how: str = ""
    times: int | None = None
    seconds: float | None = None


SCENARIOS = (
    Scenario(FaultName.TOKEN_EXPIRED),
    Scenario(FaultName.TOKEN_WRONG_KIND),
    Scenario(FaultName.MINT_SLOW, how="2 s", times=1, seconds=2),
    Scenario(FaultName.MINT_429, how="once", times=1),
    Scenario(FaultName.MINT_429, how="each time"),
    Scenario(FaultName.MINT_500, how="once", times=1),
    Scenario(FaultName.MINT_500, how="each time"),
    Scenario(FaultName.SUSPENDED, how="two logins", times=2),
    Scenario(FaultName.SUSPENDED, how="never wakes"),
    Scenario(FaultName.CUT, _in_the_middle, "in mid-statement"),
    Scenario(FaultName.SHUTDOWN, _in_the_middle, "in mid-statement"),
    Scenario(FaultName.FEED_PAUSED, _feed),
    Scenario(FaultName.FEED_LAGGING, _feed, "600 s", seconds=600),
    Scenario(FaultName.FEED_SKIPPED, _feed),
    Scenario(FaultName.FEED_UNREADABLE, _feed),
    Scenario(FaultName.DISK_FULL, _feed),
)


def play(stage: Stage, scenario: Scenario) -> Outcome:
    """Run one job with one fault, on a table of which all changes but the last are flushed."""
    stage.execute(TABLE)
    stage.flush()
    if scenario.job is not _in_the_middle:
        stage.server.fault(scenario.fault, times=scenario.times, seconds=scenario.seconds)
    outcome = scenario.job(stage, scenario.fault)
    stage.server.clear_faults()
    return outcome


def _have_something_unflushed(stage: Stage, fault: FaultName) -> None:
    if fault is FaultName.FEED_LAGGING:
        stage.flush()  # the feed was just restarted: wait for its first round
    if fault is FaultName.FEED_SKIPPED:
        with psycopg.connect(stage.superuser, autocommit=True) as admin:
            while admin.execute("SELECT FROM wal2delta.tables WHERE status = 'SKIPPED'").fetchone() is None:
                time.sleep(0.05)
    # As superuser, because the login of the jobs is not tested here.
    with psycopg.connect(stage.superuser, autocommit=True) as admin:
        admin.execute("UPDATE metrics SET value = value + 1")


def shown_secrets(stage: Stage) -> list[str]:
    """Return the kinds of secrets that the output and the logs of the server show."""
    state = stage.server.state
    logs = [stage.server.log_file, stage.server.folder / "feed.log", stage.server.folder / "pg/log"]
    sys.stdout.flush()
    stage.said.flush()
    text = Path(stage.said.name).read_text() + "".join(log.read_text(errors="replace") for log in logs)
    secrets = {
        "a token": "eyJ",  # they are JWTs: all of them begin so
        "the owner's secret": state.owner.client_secret,
        "the jobs' secret": state.jobs.client_secret,
        "the admin token": state.admin_token,
    }
    return [name for name, secret in secrets.items() if secret in text]


@contextmanager
def staged() -> Iterator[Stage]:
    """Yield a stage that Airflow's connections point to; output goes to a file meanwhile."""
    with tempfile.TemporaryDirectory(prefix="lake-", ignore_cleanup_errors=True) as folder:
        os.environ["AIRFLOW_HOME"] = f"{folder}/airflow"
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "DEBUG"
        logging.basicConfig(level=logging.DEBUG)
        with (
            LocalServer(Path(folder) / "l", feed_interval=0.5) as server,
            _printed_to(Path(folder) / "said") as said,
        ):
            os.environ.update(server.airflow_env())
            from airflow_provider_lakets.hooks.lakets import LakeTSHook

            LakeTSHook().install()
            stage = Stage(server, said)
            stage.ensure()  # imports what operators import
            yield stage


@contextmanager
def _printed_to(path: Path) -> Iterator[IO[str]]:
    """Send standard output and error, including that of C code, to a file."""
    with path.open("w+") as said:
        kept = [(os.dup(number), number) for number in (1, 2)]
        for _, number in kept:
            os.dup2(said.fileno(), number)
        try:
            yield said
        finally:
            sys.stdout.flush()
            for old, number in kept:
                os.dup2(old, number)
                os.close(old)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args()
    lines = ["| fault | strikes | what the job does | seconds |", "|---|---|---|--:|"]
    with staged() as stage:
        for scenario in SCENARIOS:
            outcome, seconds = play(stage, scenario)
            lines.append(f"| `{scenario.fault.value}` | {scenario.how} | {outcome} | {seconds:.1f} |")
        secrets, size = shown_secrets(stage), stage.said.tell()
    table = "\n".join(lines) + "\n"
    print(table)
    print(f"Secrets in {size:,} bytes of logs and errors, and in the server's own logs: {secrets or 'none'}")
    if options.write:
        fill(DOCUMENT, "faults", table)
    return 1 if secrets else 0


if __name__ == "__main__":
    sys.exit(main())
