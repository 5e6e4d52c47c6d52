"""A real Airflow with all its parts, driven by its public API, and its state when it hangs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_lakets.local.demo.airflow.runs import AirflowClient
from airflow_provider_lakets.local.demo.airflow.server import AirflowServer
from airflow_provider_lakets.local.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

PARTS = ("dag-processor", "scheduler", "triggerer")
RUN_SECONDS = 300.0
_POLL_SECONDS = 0.3
_ENDED = ("success", "failed")

# What takes minutes by default, so that a few seconds more or less do not matter: here they would.
QUICK = {
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
}


@dataclass(frozen=True)
class Task:
    """A task instance: ``name`` is that of a mapped one, ``pid`` the process that runs it."""

    task_id: str
    map_index: int
    name: str | None
    state: str
    tries: int
    pid: int | None
    seconds: float


class Airflow(AirflowClient):
    """
    An Airflow of one's own.

    :param home: Its folder.
    :param dags: The DAG folder.
    :param environment: Further variables, such as those of its connections.
    """

    def __init__(self, home: Path, *, dags: Path, environment: Mapping[str, str]) -> None:
        self.server = AirflowServer(home, dags=dags, environment={**QUICK, **environment}, parts=PARTS)
        self.home = home
        self._dags = {file.stem for file in dags.glob("*.py")}
        super().__init__(self.server)

    def start(self) -> None:
        """Start every part, and return once each DAG file has been read."""
        self.server.start()
        self.wait_ready()
        wait_until(lambda: self._dags <= set(self.dag_ids()), 90, "all DAGs are known", self.tail)

    def broken_dags(self) -> list[str]:
        """Return what could not be imported, and why."""
        errors = self.call("GET", "/api/v2/importErrors")["import_errors"]
        return [f"{error['filename']}: {error['stack_trace']}" for error in errors]

    def trigger(self, dag_id: str, **conf: Any) -> Run:
        """Trigger a DAG."""
        path = f"/api/v2/dags/{dag_id}/dagRuns"
        run_id = self.call("POST", path, {"logical_date": None, "conf": conf})["dag_run_id"]
        return Run(self, dag_id, run_id)

    def succeed(self, dag_id: str, **conf: Any) -> Run:
        """Trigger a DAG, and return the run once it has succeeded."""
        return self.trigger(dag_id, **conf).succeed()

    def runs(self, dag_id: str) -> list[Run]:
        """Return the runs of a DAG."""
        found = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns?limit=100")["dag_runs"]
        return [Run(self, dag_id, run["dag_run_id"]) for run in found]

    def stop_runs(self) -> None:
        """End what a test that failed has left running."""
        for state in ("running", "queued"):
            for run in self.call("GET", f"/api/v2/dags/~/dagRuns?state={state}")["dag_runs"]:
                left = Run(self, run["dag_id"], run["dag_run_id"])
                self.call("PATCH", left.path, {"state": "failed"})

    def pause(self, dag_id: str, *, paused: bool = True) -> None:
        """Let no run of a DAG begin, or do."""
        self.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": paused})

    def tail(self) -> str:
        """Return the end of what each part wrote."""
        said = []
        for part in ("api-server", *PARTS):
            log = self.home / f"{part}.log"
            lines = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
            said += [f"--- {log}", *lines]
        return "\n".join(said)


class Run:
    """
    A run of a DAG.

    :param airflow: Where.
    :param dag_id: The DAG.
    :param run_id: Its run.
    """

    def __init__(self, airflow: Airflow, dag_id: str, run_id: str) -> None:
        self.airflow = airflow
        self.dag_id = dag_id
        self.run_id = run_id
        self.path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"

    @property
    def state(self) -> str:
        """The state of the run."""
        return str(self.airflow.call("GET", self.path)["state"])

    def tasks(self, task_id: str | None = None) -> list[Task]:
        """Return the task instances, or those of one task."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.airflow.call(
                "GET", f"{self.path}/taskInstances?limit=100&offset={len(found)}&order_by=map_index"
            )
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                break
        return [
            Task(
                ti["task_id"],
                ti["map_index"],
                ti["rendered_map_index"],
                ti["state"] or "none",
                ti["try_number"],
                ti["pid"],
                ti["duration"] or 0.0,
            )
            for ti in found
            if task_id in (None, ti["task_id"])
        ]

    def task(self, task_id: str) -> Task:
        """Return the only instance of a task that is not mapped, or mapped over one item."""
        tasks = self.tasks(task_id)
        assert len(tasks) == 1, f"{len(tasks)} of {task_id} in {self.told()}"
        return tasks[0]

    def states(self) -> dict[str, set[str]]:
        """Return the states of each task's instances."""
        states: dict[str, set[str]] = {}
        for task in self.tasks():
            states.setdefault(task.task_id, set()).add(task.state)
        return states

    def results(self, task_id: str) -> list[Any]:
        """Return the XComs of a task, in the order of what it is mapped over."""
        return [
            self.airflow.call(
                "GET",
                f"{self.path}/taskInstances/{task_id}/xcomEntries/return_value?map_index={task.map_index}",
            )["value"]
            for task in self.tasks(task_id)
            if task.state == "success"
        ]

    def result(self, task_id: str) -> Any:
        """Return the XCom of a task that is not mapped."""
        (only,) = self.results(task_id)
        return only

    def wait(self, seconds: float = RUN_SECONDS) -> str:
        """Return how the run ended."""
        wait_until(lambda: self.state in _ENDED, seconds, f"{self.dag_id} has ended", self.told)
        return self.state

    def succeed(self, seconds: float = RUN_SECONDS) -> Run:
        """Return once the run has succeeded."""
        assert self.wait(seconds) == "success", self.told()
        return self

    def wait_for(self, task_id: str, states: Collection[str], seconds: float = RUN_SECONDS) -> Task:
        """Return an instance of a task as soon as one is in one of these states."""

        def found() -> Task | None:
            return next((task for task in self.tasks(task_id) if task.state in states), None)

        def is_over() -> bool:
            if found() is not None:
                return True
            assert self.state not in _ENDED, f"ended before {task_id} was {states}: {self.told()}"
            return False

        wait_until(is_over, seconds, f"{task_id} is {' or '.join(states)}", self.told)
        task = found()
        assert task is not None, f"{task_id} was {states}, and is no more: {self.told()}"
        return task

    def clear(self) -> Run:
        """Clear every task of the run, so that it runs again."""
        answer = self.airflow.call(
            "POST",
            f"/api/v2/dags/{self.dag_id}/clearTaskInstances",
            {"dry_run": False, "dag_run_id": self.run_id, "only_failed": False, "reset_dag_runs": True},
        )
        assert answer["total_entries"] > 0
        wait_until(
            lambda: self.state not in _ENDED or self._has_tried_again(),
            30,
            f"{self.dag_id} runs again",
            self.told,
        )
        return self

    def _has_tried_again(self) -> bool:
        return all(task.tries > 1 for task in self.tasks())

    @property
    def logs(self) -> Path:
        """Where the logs of its tasks are."""
        return self.airflow.home / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}"

    def log(self, task: Task, attempt: int | None = None) -> str:
        """Return the messages and exceptions in the log of a task's try, by default its last."""
        folder = self.logs / f"task_id={task.task_id}"
        if task.map_index >= 0:
            folder /= f"map_index={task.map_index}"
        path = folder / f"attempt={attempt or task.tries}.log"
        return "\n".join(_told(line) for line in path.read_text(errors="replace").splitlines())

    def told(self) -> str:
        """Tell how far the run is, and the end of the logs of what did not succeed."""
        said = [f"{self.dag_id} {self.run_id} is {self.state}"]
        for task in self.tasks():
            said.append(f"{task.task_id}[{task.map_index}] is {task.state}, try {task.tries}")
            if task.state in ("success", "skipped", "removed", "upstream_failed", "none"):
                continue
            try:
                said += [f"    {line}" for line in self.log(task).splitlines()[-12:]]
            except OSError as err:
                said.append(f"    {err}")
        return "\n".join([*said[:200], self.airflow.tail()])


def _told(line: str) -> str:
    """Return an entry of a log as text."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    causes = [f"{one.get('exc_type')}: {one.get('exc_value')}" for one in entry.get("error_detail") or []]
    return " | ".join([f"{entry.get('level')} {entry.get('event')}", *causes])


def wait_until(
    holds: Callable[[], object], seconds: float, what: str, told: Callable[[], str] = lambda: ""
) -> None:
    """
    Return as soon as something holds.

    :param holds: Tells whether it does.
    :param seconds: How long to wait at most.
    :param what: It in words.
    :param told: Tells what there is to see when it does not.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            try:
                seen = told()
            except (DemoError, OSError) as err:
                seen = f"and nothing could be seen: {err}"
            raise AssertionError(f"not after {seconds:g} s: {what}\n{seen}")
        time.sleep(_POLL_SECONDS)
