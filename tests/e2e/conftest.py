"""One Lakebase and one Airflow for all scenarios; each uses the Lakebase exclusively."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from airflow_provider_lakets.local.client import LocalServer
from airflow_provider_lakets.local.demo.airflow.server import sample_dags
from airflow_provider_lakets.local.lakebase import LocalLakebase
from tests.e2e.airflow import Airflow
from tests.e2e.lake import Lake

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_OWN_DAGS = Path(__file__).with_name("dags")
_LAST = "test_secrets.py"

outcomes = pytest.StashKey[list[dict[str, Any]]]()


@dataclass(frozen=True)
class World:
    """The Lakebase from both sides of its front door, its Airflow, and Airflow's database."""

    folder: Path
    cloud: LocalServer
    lakebase: LocalLakebase
    airflow: Airflow
    metadata: str

    @property
    def metadata_url(self) -> str:
        """The metadata database, as Airflow's configuration names it."""
        return _url(self.metadata)


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Start it all, and install LakeTS through Airflow; every process is ended in any case."""
    started = time.monotonic()
    # Not pytest's own: its path is too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="lakets-e2e-", dir="/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(_remove, folder)
        cloud = stack.enter_context(LocalServer(folder / "lakebase", feed_interval=0.5))
        lakebase = stack.enter_context(LocalLakebase(cloud.folder, feed_interval=0.5))
        jobs, owner = cloud.state.jobs, cloud.state.owner
        lakebase.create_role(jobs.client_id, member_of=owner.client_id)
        # In SQLite the parts and the command line would lock each other out.
        metadata = lakebase.postgres.ensure_database("airflow")
        airflow = Airflow(
            folder / "airflow",
            dags=_dags(folder / "dags"),
            environment={
                **cloud.airflow_env(jobs),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": _url(metadata),
            },
        )
        stack.callback(airflow.server.stop)
        airflow.start()
        airflow.succeed("lakets_install")
        lakebase.create_role(owner.client_id)  # it uses what the jobs' role has installed
        _note(request.config, "start, and install", "passed", time.monotonic() - started)
        yield World(folder, cloud, lakebase, airflow, metadata)


def _url(conninfo: str) -> str:
    """Return a connection string of libpq as the URL that Airflow wants."""
    where = conninfo_to_dict(conninfo)
    return (
        f"postgresql+psycopg2://{where['user']}@/{where['dbname']}?host={where['host']}&port={where['port']}"
    )


def _dags(folder: Path) -> Path:
    """Copy the sample DAGs, with a shorter pause before a retry, and those of the scenarios."""
    folder.mkdir()
    for sample in sample_dags().glob("*.py"):
        text = sample.read_text()
        quicker = text.replace("timedelta(minutes=1)", "timedelta(seconds=3)")
        assert quicker != text, f"{sample} pauses no minute any more: make the pause short here"
        (folder / sample.name).write_text(quicker)
    for own in _OWN_DAGS.glob("*.py"):
        shutil.copy(own, folder)
    return folder


def _remove(folder: Path) -> None:
    if "KEEP" not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def airflow(world: World) -> Airflow:
    world.airflow.server.check_alive()
    return world.airflow


@pytest.fixture
def lake(world: World) -> Iterator[Lake]:
    """Yield a Lakebase in which nothing is, and nothing is wrong."""
    with contextlib.closing(Lake(world.cloud, world.lakebase)) as lake:
        try:
            yield lake
        finally:
            world.airflow.stop_runs()
            lake.clean()


# The report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report", type=Path, help="file for a list of the scenarios with their outcomes, JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[outcomes] = []
    # Asked to end, by a timeout say, it stops what it has started, as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def pytest_report_header() -> str:
    return f"airflow: {version('apache-airflow-core')}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look for secrets when there is the most to look at."""
    items.sort(key=lambda item: item.path.name == _LAST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report: pytest.TestReport = yield
    if report.when == "call" or report.outcome != "passed":
        name = item.name.removeprefix("test_").replace("_", " ")
        notes = [str(value) for what, value in item.user_properties if what == "note"]
        _note(item.config, name, report.outcome, report.duration, notes)
    return report


def _note(config: pytest.Config, name: str, outcome: str, seconds: float, notes: Sequence[str] = ()) -> None:
    config.stash[outcomes].append(
        {
            "scenario": name,
            "airflow": version("apache-airflow-core"),
            "outcome": outcome,
            "seconds": round(seconds, 1),
            "notes": [*notes],
        }
    )
    # At once: a run that is killed has a report too.
    path: Path | None = config.getoption("--report")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config.stash[outcomes], indent=1))
