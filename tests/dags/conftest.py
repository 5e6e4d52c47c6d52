"""DAGs run by Airflow in this process: metadata database, scheduling, retries, XCom."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import shutil
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG

SAMPLES = Path(__file__).parents[2] / "dags"

_numbers = itertools.count()


def dagbag_module() -> Any:
    """Return the module with DagBag, which has moved in Airflow 3.2."""
    try:
        return importlib.import_module("airflow.dag_processing.dagbag")
    except ModuleNotFoundError:
        return importlib.import_module("airflow.models.dagbag")


class Run:
    """The result of a DAG run: states, results and the exceptions of failed tries, by task."""

    def __init__(self, dag_run: DagRun, errors: list[BaseException]) -> None:
        self.state = str(dag_run.state)
        self.errors = errors
        tasks = sorted(dag_run.get_task_instances(), key=lambda ti: (ti.task_id, ti.map_index))
        self.states = {ti.task_id: str(ti.state) for ti in tasks}
        self.tries = {ti.task_id: ti.try_number for ti in tasks}
        self.names: dict[str, list[str]] = {ti.task_id: [] for ti in tasks}
        for ti in tasks:
            self.names[ti.task_id].append(str(ti.rendered_map_index))
        self._key: dict[str, Any] = {"run_id": dag_run.run_id, "dag_ids": dag_run.dag_id}

    def results(self, task_id: str) -> list[Any]:
        """Return the XComs of a task: one, or one for each mapped one."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        with create_session() as session:
            found: Any = session.scalars(
                XComModel.get_many(key="return_value", task_ids=task_id, **self._key)
            )
            rows = sorted(found, key=lambda row: row.map_index)
            # Airflow 3.1 keeps JSON as text inside the JSON column.
            return [json.loads(row.value) if isinstance(row.value, str) else row.value for row in rows]

    def result(self, task_id: str) -> Any:
        """Return the XCom of a task that is not mapped."""
        (only,) = self.results(task_id)
        return only


def check_schemas_once() -> None:
    """
    Let jsonschema check each schema of a param once.

    Airflow checks it again at each look at a param, which takes a tenth of a run.
    """
    validator: Any = importlib.import_module("jsonschema.validators").Draft202012Validator
    check = validator.check_schema
    checked: set[str] = set()

    def check_once(schema: Any, **named: Any) -> None:
        if (text := repr(schema)) not in checked:
            check(schema, **named)
            checked.add(text)

    validator.check_schema = staticmethod(check_once)


@pytest.fixture(scope="session")
def airflow() -> Path:
    """Create the metadata database, and a folder with copies of the sample DAGs."""
    check_schemas_once()
    home = Path(os.environ["AIRFLOW_HOME"])
    # Airflow's own folder of DAGs stays empty: each DAG test reads and stores all that is in it.
    (home / "dags").mkdir(exist_ok=True)
    folder = home / "samples"
    folder.mkdir(exist_ok=True)
    for sample in SAMPLES.glob("*.py"):
        shutil.copy(sample, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of Airflow's own imports are not ours to fix
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.sdk.execution_time import supervisor
        from airflow.utils.db import initdb

        initdb()
        bundles: Any = DagBundlesManager
        bundles().sync_bundles_to_db()
        # Airflow 3.1 makes the application of its API anew for each task; 3.3 makes it once.
        make_api: Any = supervisor.in_process_api_server
        supervisor.in_process_api_server = functools.lru_cache(maxsize=1)(make_api)
        in_process: Any = supervisor.InProcessTestSupervisor
        in_process._api_client()
    return folder


@pytest.fixture(autouse=True)
def _context_variables() -> Iterator[None]:
    """Remove the variables that Airflow sets for tasks, because later sessions would use them."""
    yield
    for name in [name for name in os.environ if name.startswith("AIRFLOW_CTX_")]:
        del os.environ[name]


@pytest.fixture
def run(airflow: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Run a DAG to its end, retries included; its params by name."""
    from airflow.sdk.execution_time import task_runner

    dagbag = dagbag_module()
    errors: list[BaseException] = []
    execute = task_runner._execute_task

    def note(*arguments: Any, **named: Any) -> Any:
        try:
            return execute(*arguments, **named)
        except BaseException as err:
            errors.append(err)
            raise

    # Airflow 3.1 calls no callbacks in a DAG test.
    monkeypatch.setattr(task_runner, "_execute_task", note)

    def once(dag: DAG, **conf: Any) -> Run:
        errors.clear()
        for task in dag.tasks:  # otherwise an unexpected failure would be retried for minutes
            getattr(task, "partial_kwargs", vars(task))["retry_delay"] = timedelta(0)
        bag = dagbag.DagBag(os.devnull)
        bag.bag_dag(dag)
        dagbag.sync_bag_to_db(bag, "dags-folder", None)
        return Run(dag.test(run_conf=conf), list(errors))

    return once


@pytest.fixture
def backfill(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> Callable[[DAG, datetime, datetime], Run]:
    """Run a DAG for a data interval, as a backfill does."""
    from airflow.models import dagrun

    create = dagrun.get_or_create_dagrun

    def backfilled(dag: DAG, start: datetime, end: datetime) -> Run:
        def create_as_backfill(*, session: Any, **arguments: Any) -> DagRun:
            made = create(session=session, **arguments)
            made.run_type = "backfill"
            made.data_interval_start, made.data_interval_end = start, end
            session.commit()
            return made

        monkeypatch.setattr(dagrun, "get_or_create_dagrun", create_as_backfill)
        return run(dag)

    return backfilled


@pytest.fixture
def clear(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> Callable[[DAG, Run], Run]:
    """Clear a run, as in the UI of Airflow, and run it again."""
    from airflow.models import dagrun
    from airflow.models.taskinstance import clear_task_instances

    def again(dag: DAG, done: Run) -> Run:
        def cleared(*, dag: Any, session: Any, **arguments: Any) -> Any:
            runs = session.query(dagrun.DagRun)
            found = runs.filter_by(run_id=done._key["run_id"], dag_id=dag.dag_id).one()
            clear_task_instances(found.get_task_instances(session=session), session)
            found.state = "running"
            found.dag = dag
            session.commit()
            return found

        monkeypatch.setattr(dagrun, "get_or_create_dagrun", cleared)
        return run(dag)

    return again


@pytest.fixture
def samples(airflow: Path) -> dict[str, Any]:
    """Parse the DAG folder as the DAG processor does, for each test, as a run leaves its params."""
    bag = dagbag_module().DagBag(airflow)
    assert bag.import_errors == {}
    return dict(bag.dags)


@pytest.fixture
def dag(airflow: Path) -> DAG:
    """Return an empty DAG for tasks, which are retried once without delay."""
    from airflow.sdk import DAG

    return DAG(
        f"case_{next(_numbers)}",
        schedule=None,
        start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
        default_args={"retries": 1, "retry_delay": timedelta(0)},
    )
