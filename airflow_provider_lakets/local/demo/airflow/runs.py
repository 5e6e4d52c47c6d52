"""Run DAGs on the demo's Airflow through its public API, and read the results of their tasks."""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_lakets.local.demo.airflow.server import READY_SECONDS, USER
from airflow_provider_lakets.local.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from airflow_provider_lakets.local.demo.airflow.server import AirflowServer

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.4
_RUN_SECONDS = 300.0
_ANSWER_SECONDS = 120.0  # on a busy machine the first responses of the API server take long
_FAILED = ("failed", "up_for_retry", "upstream_failed")


@dataclass(frozen=True)
class TaskRun:
    """A finished task instance; ``name`` is its label if it is mapped, ``result`` its XCom."""

    task_id: str
    name: str | None
    state: str
    result: Any


@dataclass(frozen=True)
class DagRun:
    """A finished run of a DAG."""

    dag_id: str
    seconds: float
    tasks: Sequence[TaskRun]

    def results(self, task_id: str) -> list[Any]:
        """Return the XComs of a task: one, or one for each mapped instance."""
        return [task.result for task in self.tasks if task.task_id == task_id and task.state == "success"]


class AirflowClient:
    """
    A client of Airflow's API.

    :param server: The Airflow, whose start has begun.
    """

    def __init__(self, server: AirflowServer) -> None:
        self._server = server
        self._token = ""
        # The proxies of the environment are not meant for our own port.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def wait_ready(self) -> None:
        """Return once the API answers and knows every DAG; the scheduler may start later."""
        self._server.wait_started()
        deadline = time.monotonic() + READY_SECONDS
        while not self._token:
            self._server.check_alive()
            if time.monotonic() > deadline:
                raise DemoError(f"Airflow's API server did not answer within {READY_SECONDS:g} s.")
            try:
                login = {"username": USER, "password": self._server.password}
                self._token = self._ask("POST", "/auth/token", login)["access_token"]
            except OSError:  # nobody listens yet
                time.sleep(_POLL_SECONDS)
        broken = self.call("GET", "/api/v2/importErrors")["import_errors"]
        if broken:
            raise DemoError(f"Airflow cannot import {broken[0]['filename']}: {broken[0]['stack_trace']}")

    def dag_ids(self) -> list[str]:
        """Return the DAGs that Airflow knows."""
        return sorted(dag["dag_id"] for dag in self.call("GET", "/api/v2/dags")["dags"])

    def version(self) -> str:
        """Return the version of Airflow."""
        return str(self.call("GET", "/api/v2/version")["version"])

    def run(self, dag_id: str, progress: Callable[[str], None] = lambda said: None) -> DagRun:
        """
        Trigger a DAG, wait for its end, and return what its tasks did.

        Raise an error as soon as a task has failed, even if it will be retried.

        :param dag_id: The DAG.
        :param progress: Called with a short text about the progress.
        """
        started = time.monotonic()
        path = f"/api/v2/dags/{dag_id}/dagRuns"
        run_id = self.call("POST", path, {"logical_date": None})["dag_run_id"]
        path = f"{path}/{quote(run_id, safe='')}"
        while True:
            tasks = self.call("GET", f"{path}/taskInstances?limit=1000")["task_instances"]
            failed = [task for task in tasks if task["state"] in _FAILED]
            if failed:
                raise DemoError(self._failure(dag_id, run_id, failed))
            # Requests take time from the cores that run the tasks, so the state of the run is read
            # only at the end.
            if _are_done(tasks) and self.call("GET", path)["state"] == "success":
                break
            self._server.check_alive()
            if time.monotonic() - started > _RUN_SECONDS:
                states = ", ".join(f"{task['task_id']} {task['state']}" for task in tasks)
                raise DemoError(f"DAG {dag_id} did not end within {_RUN_SECONDS:g} s: {states}.")
            progress(_states(tasks))
            time.sleep(_POLL_SECONDS)
        return DagRun(
            dag_id,
            time.monotonic() - started,
            [self._task_run(f"{path}/taskInstances", task) for task in tasks],
        )

    def _task_run(self, path: str, task: dict[str, Any]) -> TaskRun:
        value = None
        if task["state"] == "success":
            entry = f"{path}/{task['task_id']}/xcomEntries/return_value?map_index={task['map_index']}"
            try:
                value = self._ask("GET", entry)["value"]
            except urllib.error.HTTPError as err:  # it returned nothing
                err.close()
        log.info("task %s (%s): %s %s", task["task_id"], task["rendered_map_index"], task["state"], value)
        return TaskRun(task["task_id"], task["rendered_map_index"], task["state"], value)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the response of the API."""
        try:
            return self._ask(method, path, body)
        except OSError as err:
            self._server.check_alive()
            raise DemoError(f"Airflow's API refused {method} {path}: {err}") from err

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            self._server.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        with self._opener.open(request, timeout=_ANSWER_SECONDS) as answer:
            return json.load(answer)

    def _failure(self, dag_id: str, run_id: str, failed: list[dict[str, Any]]) -> str:
        lines = [f"DAG {dag_id} failed."]
        for task in failed:
            if task["state"] == "upstream_failed":
                continue
            folder = (
                self._server.home
                / "logs"
                / f"dag_id={dag_id}"
                / f"run_id={run_id}"
                / f"task_id={task['task_id']}"
            )
            if task["map_index"] >= 0:
                folder /= f"map_index={task['map_index']}"
            lines.append(f"Task {task['task_id']}: {_last_error(folder / 'attempt=1.log')}")
        return "\n".join(lines)


def _states(tasks: list[dict[str, Any]]) -> str:
    """Return which tasks run, or else how many are done."""
    running = [task["task_id"] for task in tasks if task["state"] == "running"]
    if running:
        return f"{running[0]} ({len(running)} running)" if len(running) > 1 else running[0]
    return f"{sum(_are_done([task]) for task in tasks)} of {len(tasks)} tasks done"


def _are_done(tasks: list[dict[str, Any]]) -> bool:
    return all(task["state"] in ("success", "skipped") for task in tasks)


def _last_error(path: Path) -> str:
    """Return the exception in a task's log, and the path of the log."""
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return f"see {path.parent}"
    for entry in reversed(entries):
        for detail in entry.get("error_detail") or []:
            return f"{detail.get('exc_value')} (log: {path})"
    return f"see {path}"
