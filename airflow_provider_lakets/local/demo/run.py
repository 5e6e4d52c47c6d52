"""The demo from its start to its exit code."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.client import LocalServer
from airflow_provider_lakets.local.demo import data, kept, picture, report
from airflow_provider_lakets.local.demo.airflow import outcomes
from airflow_provider_lakets.local.demo.airflow.runs import AirflowClient, DagRun
from airflow_provider_lakets.local.demo.airflow.server import AirflowServer, sample_dags
from airflow_provider_lakets.local.demo.audit import audit
from airflow_provider_lakets.local.demo.lifecycle import YEAR, Lifecycle, Scale
from airflow_provider_lakets.local.demo.progress import Steps
from airflow_provider_lakets.local.demo.signals import stoppable
from airflow_provider_lakets.local.environment import forget_other_postgres
from airflow_provider_lakets.local.lakebase import LocalLakebase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.demo.signals import Stop

log = logging.getLogger(__name__)

_NARROWEST, _WIDEST = 80, 100
_FEED_INTERVAL = 1.0
# A Unix socket's name is limited to about a hundred bytes.
_LONGEST_TEMP = 40


def run_demo(scale: Scale = YEAR, *, keep: bool = False, console: Console | None = None) -> int:
    """
    Run the demo, print its progress, and return the exit code: 0 if the audit finds no problem.

    :param scale: How much data, and when it is tiered and dropped.
    :param keep: Leave the Lakebase running at the end, until Ctrl-C.
    :param console: Where to print.
    """
    console = console or _console()
    folder = Path(tempfile.mkdtemp(prefix="lakets-demo-", dir=_temp_dir()))
    started = time.monotonic()
    with _log_to(folder / "demo.log"), stoppable() as stop:
        try:
            problems = _Demo(folder, scale, console, stop).run(keep=keep)
        except KeyboardInterrupt:
            log.info("interrupted")
            problems = ["interrupted"]
        except LakeTSError as err:
            log.exception("The demo failed")
            problems = [str(err)]
        except Exception as err:
            log.exception("The demo failed")
            problems = [f"{type(err).__name__}: {err}"]
    if not problems:
        shutil.rmtree(folder, ignore_errors=True)
        seconds = time.monotonic() - started
        console.print(
            f"Every row is where it must be, and every RollUp is right. The demo took {seconds:.0f} s."
        )
        console.print("demo: OK")
        return 0
    console.print(f"\nThe files of the demo are in {folder}; read demo.log there first.", soft_wrap=True)
    for problem in problems:
        console.print(f"demo: {problem}", style="red", markup=False, soft_wrap=True)
    return 1


class _Demo:
    """
    One run.

    :param folder: The folder of all its files.
    :param scale: How much data, and when it is tiered and dropped.
    :param console: Where to print.
    :param stop: Decides whether a signal interrupts the run.
    """

    def __init__(self, folder: Path, scale: Scale, console: Console, stop: Stop) -> None:
        self.folder = folder
        self.scale = scale
        self.console = console
        self.stop = stop
        self.steps = Steps(console)
        self.runs: list[DagRun] = []
        self.now = datetime.now(timezone.utc)

    def run(self, *, keep: bool) -> list[str]:
        """Run the whole lifecycle, and return the problems found."""
        self.console.print(
            "\n[bold]A year of New York weather and flights goes through its whole lifecycle[/]\n"
            "in a local Lakebase: real Postgres, change feed, Delta tables and Airflow.\n"
        )
        dags = sample_dags()
        forget_other_postgres()
        with contextlib.ExitStack() as stack:
            try:
                return self._run(stack, dags, keep=keep)
            finally:
                self.stop.ignore()

    def _run(self, stack: contextlib.ExitStack, dags: Path, *, keep: bool) -> list[str]:
        with self.steps.step("Start a local Lakebase") as step:
            cloud = stack.enter_context(LocalServer(self.folder / "lakebase", feed_interval=_FEED_INTERVAL))
            # The same Lakebase without the gateway: it gives access to the Delta tables.
            lakebase = stack.enter_context(LocalLakebase(cloud.folder, feed_interval=_FEED_INTERVAL))
            owner, jobs = cloud.state.owner.client_id, cloud.state.jobs.client_id
            lakebase.create_role(jobs, member_of=owner)
            step.say("OAuth, TLS, Postgres, change feed")
        server = AirflowServer(
            self.folder / "airflow", dags=dags, environment=cloud.airflow_env(cloud.state.jobs)
        )
        stack.callback(server.stop)
        server.start()
        airflow = AirflowClient(server)
        with self.steps.step("Read a year of real data") as step:
            tables = data.load(self.now, self.scale.days)
            step.say(", ".join(f"{len(rows):,} {name}" for name, rows in tables.items()))
        with self.steps.step("Start Airflow beside it") as step:
            airflow.wait_ready()
            step.say(f"Airflow {airflow.version()}, {len(airflow.dag_ids())} LakeTS DAGs")
        self._dag(airflow, "lakets_install")

        lakebase.create_role(owner)  # the owner of the tables needs rights on what the jobs' role installed
        life = stack.enter_context(
            contextlib.closing(Lifecycle(lakebase, tables, self.scale, self.now, cloud.connect()))
        )
        self._set_up(life)
        problems = self._live(airflow, life)
        with self.steps.step("Audit both tiers and RollUps") as step:
            found = audit(lakebase, life.conn, life.truth)
            step.say(f"{len(found.problems)} problem(s)" if found.problems else "nothing lost, nothing wrong")
        self.console.print()
        report.print_jobs(self.console, self.runs)
        picture.print_picture(self.console, life.conn, found)
        report.print_audit(self.console, found)
        if keep:
            server.stop()
            self._leave_running(lakebase)
        return [*problems, *found.problems]

    def _leave_running(self, lakebase: LocalLakebase) -> None:
        self.console.print("The Lakebase runs until Ctrl-C:")
        self.console.print(f"  psql '{lakebase.conninfo()}'", soft_wrap=True)
        self.console.print(f"  Delta tables in {lakebase.delta_dir}\n", soft_wrap=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()

    def _set_up(self, life: Lifecycle) -> None:
        with self.steps.step("Adopt a full table: weather") as step:
            step.say(life.adopt_weather())
        with self.steps.step("Fill an empty table: flights") as step:
            step.say(life.stream_flights())
        with self.steps.step("Let the feed write it to Delta") as step:
            step.say(life.wait_flushed())
        kept.prepare(life.conn)

    def _live(self, airflow: AirflowClient, life: Lifecycle) -> list[str]:
        """Run the four jobs, correct old rows, and run them again."""
        self._dag(airflow, "lakets_partition_manager")
        self._dag(airflow, "lakets_rollup_refresh")
        with self.steps.step("Correct old rows, feed paused") as step:
            step.say(life.correct_while_feed_lags())
        self._dag(airflow, "lakets_tiering")
        with kept.keep(life.conn):
            self._dag(airflow, "lakets_retention")
        with self.steps.step("Correct more, then resume feed") as step:
            step.say(life.correct_again())
        self._dag(airflow, "lakets_rollup_refresh")
        self._dag(airflow, "lakets_tiering")
        with kept.keep(life.conn):
            self._dag(airflow, "lakets_retention")
        return outcomes.unexpected_results(self.runs)

    def _dag(self, airflow: AirflowClient, dag_id: str) -> None:
        with self.steps.step(f"DAG {dag_id}") as step:
            run = airflow.run(dag_id, step.say)
            step.say(report.summarise(run))
        self.runs.append(run)


def _console() -> Console:
    """Return a console of a width at which tables are readable."""
    console = Console(highlight=False)
    console.width = min(max(console.width, _NARROWEST), _WIDEST)
    return console


def _temp_dir() -> str:
    found = tempfile.gettempdir()
    return found if len(found) <= _LONGEST_TEMP else "/tmp"  # noqa: S108 - mkdtemp makes a folder of our own in it


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Write the log of this package to a file, not to the terminal."""
    logger = logging.getLogger("airflow_provider_lakets")
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.level, logger.propagate = before
