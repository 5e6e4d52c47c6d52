"""docker-compose.yaml as a project of its own: brought up, looked into, disturbed, taken down."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.compose import snippets

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
IMAGE = "airflow-provider-lakets-local"
BASE_IMAGES = ("apache/airflow:3.3.2", "postgres:16")
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer")
SERVICES = (*AIRFLOW, "lakebase", "postgres")
STEPS = ("secrets", "migrate", "sample-data")


class StackError(Exception):
    """A command failed, or a condition did not become true in time."""


def run(command: Sequence[str], *, stdin: str | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command and return its standard output."""
    done = subprocess.run(command, input=stdin, env=env, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise StackError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def compose_command() -> list[str]:
    """Return the Compose of this machine, version 2 before 1; COMPOSE in the environment wins."""
    if "COMPOSE" in os.environ:
        return os.environ["COMPOSE"].split()
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise StackError("There is neither `docker compose` nor `docker-compose` here.")


class Stack:
    """The services, with a name and volumes that nothing else uses."""

    def __init__(self) -> None:
        self.command = compose_command()
        self.name = f"lakets-compose-test-{os.getpid()}"
        self.port = _free_port()
        self._env = {**os.environ, "AIRFLOW_PORT": str(self.port), "LAKEBASE_FEED_INTERVAL": "3"}

    def compose(self, *arguments: str) -> str:
        """Run a command of Compose."""
        return run([*self.command, "-p", self.name, *arguments], env=self._env)

    def container(self, service: str) -> str:
        """Return the id of a service's container, running or not."""
        found = run(
            [
                *("docker", "ps", "--all", "--quiet", "--latest"),
                *("--filter", f"label=com.docker.compose.project={self.name}"),
                *("--filter", f"label=com.docker.compose.service={service}"),
            ]
        )
        return found.strip()

    def state(self, service: str) -> dict[str, Any]:
        """Return the state of a service's container from Docker."""
        (found,) = json.loads(run(["docker", "inspect", self.container(service)]))
        return dict(found)

    def execute(self, service: str, *command: str, stdin: str | None = None) -> str:
        """Run a command inside a service."""
        return run(["docker", "exec", "--interactive", self.container(service), *command], stdin=stdin)

    def python(self, service: str, code: str, *arguments: str) -> Any:
        """Run Python inside a service and return its last line, parsed as JSON."""
        said = self.execute(service, "python", "-", *arguments, stdin=code)
        return json.loads(said.splitlines()[-1])

    def sql(self, query: str, role: str = "postgres") -> list[list[Any]]:
        """Run SQL in the Lakebase without its gateway; return each row as texts."""
        return list(self.python("lakebase", snippets.SQL, query, role))

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call Airflow's REST API as its user, whose password stays in the container."""
        return self.python("api-server", snippets.API, method, path, json.dumps(body))

    def wait_healthy(self, services: Sequence[str], seconds: float) -> None:
        """Return once all are healthy."""

        def sick() -> list[str]:
            states = {service: self.state(service)["State"] for service in services}
            for service, state in states.items():
                if not state["Running"]:
                    raise StackError(f"{service} is {state['Status']}:\n{self.tail(service)}")
            return [name for name, state in states.items() if state["Health"]["Status"] != "healthy"]

        try:
            wait_until(lambda: not sick(), seconds, "all services are healthy")
        except StackError as err:
            logs = "\n".join(f"{service}:\n{self.tail(service)}" for service in sick())
            raise StackError(f"{err}\n{logs}") from err

    def tail(self, service: str) -> str:
        """Return the end of a service's log."""
        done = subprocess.run(
            ["docker", "logs", "--tail", "20", self.container(service)], capture_output=True, text=True
        )
        return done.stdout + done.stderr

    def log(self, service: str) -> str:
        """Return the whole output of a service."""
        done = subprocess.run(["docker", "logs", self.container(service)], capture_output=True, text=True)
        return done.stdout + done.stderr


def wait_until(is_so: Any, seconds: float, what: str, pause: float = 1.0) -> float:
    """Return how long it took until a condition held."""
    started = time.monotonic()
    while not is_so():
        if time.monotonic() - started > seconds:
            raise StackError(f"After {seconds:g} s it is still not so that {what}.")
        time.sleep(pause)
    return time.monotonic() - started


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
