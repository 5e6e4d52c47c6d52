"""The processes of a private, real Airflow: API server, scheduler, and the others."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import airflow_provider_lakets
from airflow_provider_lakets.local.demo.errors import DemoError
from airflow_provider_lakets.local.environment import no_proxy_variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future

log = logging.getLogger(__name__)

USER = "demo"
READY_SECONDS = 300.0  # a busy machine takes minutes; a process that dies is noticed at once
_STOP_SECONDS = 1.0
# Prefixes of variables that are for another Airflow, workspace or database.
_OTHER_PREFIXES = ("AIRFLOW_", "DATABRICKS_", "LAKETS_", "PG")


def sample_dags() -> Path:
    """Return the folder of the sample DAGs: in the package, or beside it in a checkout."""
    package = Path(airflow_provider_lakets.__file__).parent
    for folder in (package.parent / "dags", package / "dags"):
        if (folder / "lakets_tiering.py").is_file():
            return folder
    raise DemoError(
        f"The sample DAGs are missing: looked beside and inside {package}. "
        "Run the demo from a checkout of the repository: make demo"
    )


class AirflowServer:
    """
    Airflow in a folder, with a metadata database, a port and secrets of its own.

    Nothing of the user's own Airflow is read or touched.

    :param home: AIRFLOW_HOME; created if missing.
    :param dags: The DAG folder.
    :param environment: Further variables, such as those of its connections.
    :param parts: What to run beside the API server. Without ``dag-processor``, DAGs are read once.
    """

    def __init__(
        self,
        home: Path,
        *,
        dags: Path,
        environment: Mapping[str, str],
        parts: Sequence[str] = ("scheduler",),
    ) -> None:
        self.home = home
        self._parts = parts
        self.password = secrets.token_urlsafe(24)
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._env = {**self._environment(dags), **environment}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._starting: Future[None] | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def _environment(self, dags: Path) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OTHER_PREFIXES)}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)  # bytecode makes every start twice as fast
        section = {
            ("CORE", "DAGS_FOLDER"): str(dags),
            ("CORE", "LOAD_EXAMPLES"): "False",
            ("CORE", "DAGS_ARE_PAUSED_AT_CREATION"): "False",
            ("CORE", "PARALLELISM"): "4",
            ("CORE", "SIMPLE_AUTH_MANAGER_USERS"): f"{USER}:admin",
            ("CORE", "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"): str(self._passwords),
            ("CORE", "EXECUTION_API_SERVER_URL"): f"{self.url}/execution/",
            ("DATABASE", "SQL_ALCHEMY_CONN"): f"sqlite:///{self.home / 'airflow.db'}",
            # Only the demo starts DAG runs, not their schedules.
            ("SCHEDULER", "USE_JOB_SCHEDULE"): "False",
            ("SCHEDULER", "SCHEDULER_IDLE_SLEEP_TIME"): "0.2",
            ("WORKERS", "MIN_HEARTBEAT_INTERVAL"): "1",
            # By default 5 s, within which a busy laptop does not always answer a task's first
            # request.
            ("WORKERS", "EXECUTION_API_TIMEOUT"): "60",
            ("API", "HOST"): "127.0.0.1",
            ("API", "PORT"): self.url.rpartition(":")[2],
            ("API", "BASE_URL"): self.url,
            ("LOGGING", "COLORED_CONSOLE_LOG"): "False",
            ("API", "SECRET_KEY"): secrets.token_urlsafe(24),
            ("API_AUTH", "JWT_SECRET"): secrets.token_urlsafe(48),
            # Airflow 3.1 has none by default, which newer releases of PyJWT reject.
            ("API_AUTH", "JWT_ISSUER"): "lakets",
        }
        return {
            **kept,
            **{f"AIRFLOW__{part}__{name}": value for (part, name), value in section.items()},
            "AIRFLOW_HOME": str(self.home),
            **no_proxy_variables(kept),
            "PYTHONUTF8": "1",  # Airflow reads its files in the encoding of the locale
            "PYTHONWARNINGS": "ignore",
        }

    @property
    def _passwords(self) -> Path:
        return self.home / "passwords.json"

    # Start and stop

    def start(self) -> None:
        """Start in the background; see :meth:`wait_started`."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._passwords.touch(mode=0o600)
        self._passwords.write_text(json.dumps({USER: self.password}), encoding="utf-8")
        # All processes are in its group. When this process ends, even by SIGKILL, its input ends,
        # and it kills the group.
        self._guard = subprocess.Popen(
            ["sh", "-c", "read _; kill -KILL 0"], stdin=subprocess.PIPE, **_in_group(0)
        )
        pool = ThreadPoolExecutor(1, thread_name_prefix="airflow-start")
        self._starting = pool.submit(self._start)
        pool.shutdown(wait=False)

    def _start(self) -> None:
        self._finish("migrate", "db", "migrate")
        self._launch("api-server", "api-server")
        if "dag-processor" not in self._parts:
            self._finish("serialize", "dags", "reserialize")
        for part in self._parts:
            self._launch(part, part)

    def launch(self, part: str, **environment: str) -> None:
        """Restart a part that was killed; these variables take precedence over its environment."""
        self._launch(part, part, **environment)

    def kill(self, part: str) -> None:
        """Kill a part and all processes that it started."""
        process = self._processes.pop(part)
        family = _process_tree(process.pid)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=_STOP_SECONDS)

    def command(self, *command: str, timeout: float = READY_SECONDS) -> str:
        """Run another Airflow command, and return its output."""
        ran = subprocess.run(
            [sys.executable, "-m", "airflow", *command],
            env=self._env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=timeout,
        )
        if ran.returncode != 0:
            raise DemoError(f"airflow {' '.join(command)} ended with {ran.returncode}:\n{ran.stdout}")
        return ran.stdout

    def _launch(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped or self._guard is None:
                raise DemoError("Airflow was stopped while it started.")
            group = self._guard.pid
            with (self.home / f"{name}.log").open("ab") as output:
                process = self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "airflow", *command],
                    env={**self._env, **environment},
                    cwd=self.home,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    **_in_group(group),
                )
            log.info("airflow %s is process %d", " ".join(command), process.pid)
            return process

    def _finish(self, name: str, *command: str) -> None:
        if self._launch(name, *command).wait() != 0:
            raise self._broken(name)
        del self._processes[name]

    def wait_started(self) -> None:
        """Return once every process has been started."""
        assert self._starting is not None  # noqa: S101 - start() comes first
        self._starting.result(READY_SECONDS)

    def stop(self) -> None:
        """End every process, running tasks too; a second call does nothing."""
        with self._lock:
            self._stopped = True
            guard, self._guard = self._guard, None
        if guard is None:
            return
        children = list(self._processes.values())
        # Each task has its own process group, so tasks are found as descendants, before their
        # parents end.
        family: list[psutil.Process] = []
        for child in children:
            family += _process_tree(child.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(guard.pid, signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=_STOP_SECONDS)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=_STOP_SECONDS)
        for child in (*children, guard):
            child.wait()
        if guard.stdin is not None:
            guard.stdin.close()

    def check_alive(self) -> None:
        """Raise an error if a process has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise self._broken(name)

    def _broken(self, name: str) -> DemoError:
        path = self.home / f"{name}.log"
        last = (
            path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
            if path.exists()
            else []
        )
        return DemoError("\n".join([f"airflow {name} ended early; the end of {path}:", *last]))


def _process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _in_group(group: int) -> dict[str, Any]:
    """Return arguments for a child in a process group (0: its own), so Ctrl-C only reaches us."""
    if sys.version_info >= (3, 11):
        return {"process_group": group}
    return {"preexec_fn": lambda: os.setpgid(0, group)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
