"""Control a local Lakebase from other processes: start it, connect, inject faults, stop it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import psycopg

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.door.authority import client_context
from airflow_provider_lakets.local.feed.control import DEFAULT_INTERVAL
from airflow_provider_lakets.local.pg.account import Account
from airflow_provider_lakets.local.pg.binaries import bin_dir
from airflow_provider_lakets.local.pg.postgres import DEFAULT_DATABASE
from airflow_provider_lakets.local.processes import end_process, open_log
from airflow_provider_lakets.local.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from airflow_provider_lakets.local.api.faults import FaultName
    from airflow_provider_lakets.local.api.workspace import Principal

DEFAULT_FOLDER = Path(".lakets")
SERVER = "airflow_provider_lakets.local.server"

# The server's exit code for errors that it explains, and the text that precedes them in its log.
EXPLAINED = 3
ERROR = "\nlakets: "

_START_SECONDS = 90.0
_WAYS_TO_STOP = ((signal.SIGTERM, 30.0), (signal.SIGKILL, 30.0))  # SIGKILL loses no data either


class LocalServerError(LakeTSError):
    """The local Lakebase did not start, does not run, or rejected a request."""


class LocalServer:
    """
    The local Lakebase in a folder: REST API, TLS login, Postgres and change feed.

    As a context manager, it starts the server and stops it at the end, even if this process dies.

    :param folder: The folder that holds all its files.
    :param version: Postgres major version: 16, 17 or 18.
    :param feed_interval: Seconds between two rounds of the feed.
    :param arguments: Further arguments of the server.
    """

    def __init__(
        self,
        folder: Path,
        *,
        version: int = 16,
        feed_interval: float = DEFAULT_INTERVAL,
        arguments: Sequence[str] = (),
    ) -> None:
        # Resolve symbolic links and "..", so that each folder has only one name.
        self.folder = _plain(folder)
        self._version = version
        self._arguments = ["--version", str(version), "--feed-interval", str(feed_interval), *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, attached: bool = False) -> LocalServer:
        """
        Start the server unless it runs, and return once it accepts connections.

        :param attached: Whether the server stops when this process ends.
        """
        if self.is_running:
            return self
        bin_dir(self._version)  # download here, so that it does not count against the timeout
        Account().make_private(self.folder)
        command = [sys.executable, "-m", SERVER, str(self.folder)]
        with open_log(self.log_file) as output:
            log_start = output.tell()
            self._process = process = subprocess.Popen(
                [*command, *self._arguments, *(["--attached"] if attached else [])],
                stdin=subprocess.PIPE if attached else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C must not reach the server
            )
        try:
            self._wait_until_ready(process, log_start)
        except BaseException:  # on Ctrl-C too, so that no unused server keeps running
            self.stop()
            raise
        return self

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log_start: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_running:
            if process.poll() is not None:
                log = self.log_file.read_bytes()[log_start:].decode(errors="replace")
                if process.returncode == EXPLAINED:
                    raise LocalServerError(log.rpartition(ERROR)[2].strip())
                raise LocalServerError(self._with_log(f"It ended with code {process.returncode}", log))
            if time.monotonic() > deadline:
                log = self.log_file.read_bytes()[log_start:].decode(errors="replace")
                raise LocalServerError(self._with_log(f"It was not ready after {_START_SECONDS:g} s", log))
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server, and any processes left by a killed one; do nothing if none runs."""
        from airflow_provider_lakets.local.pg.process import stop_abandoned_server

        ours, self._process = self._process, None
        if ours is not None:
            end_process(ours.pid, _WAYS_TO_STOP, lambda: ours.poll() is not None)
            if ours.stdin is not None:
                ours.stdin.close()
        elif self.is_running:
            end_process(self.state.pid, _WAYS_TO_STOP)
        for pid_file in (self.folder / "pg/postmaster.pid", *self.folder.glob("branches/*/postmaster.pid")):
            stop_abandoned_server(pid_file.parent)

    def __enter__(self) -> LocalServer:
        return self.start(attached=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def state(self) -> State:
        """The state that the server keeps in its folder."""
        return State.load(self.folder)

    @property
    def is_running(self) -> bool:
        """Return whether the server runs; the process id left by a killed one does not count."""
        state = self.state
        if not state.pid or not psutil.pid_exists(state.pid):
            return False
        try:
            process = psutil.Process(state.pid)
            here, command = Path(process.cwd()), process.cmdline()
        except psutil.Error:
            return False
        return SERVER in command and self.folder in [_plain(here / argument) for argument in command]

    def command(self, action: str) -> str:
        """
        Return the shell command for an action; it includes the folder unless that is the default.

        :param action: The action, for example ``up --env``.
        """
        is_usual = self.folder == _plain(DEFAULT_FOLDER)
        return f"lakets local {action}" + ("" if is_usual else f" --folder {shlex.quote(str(self.folder))}")

    @property
    def log_file(self) -> Path:
        """The log file of the server."""
        return self.folder / "server.log"

    def env(self, principal: Principal | None = None) -> dict[str, str]:
        """Return the environment variables for logins of programs, by default as the owner."""
        return self.state.env(self.folder, principal)

    def airflow_env(self, principal: Principal | None = None) -> dict[str, str]:
        """
        Return the variables that define ``lakebase_default`` and ``databricks_default``.

        :param principal: The identity that Airflow logs in as; by default the owner.
        """
        state = self.state
        who = principal or state.owner
        lakebase = {
            "conn_type": "lakebase",
            "port": state.port,
            "schema": DEFAULT_DATABASE,
            "extra": {
                "endpoint": state.endpoint,
                "databricks_conn_id": "databricks_default",
                "sslmode": "verify-full",
                "sslrootcert": str(self.folder / "ca.pem"),
            },
        }
        databricks = {
            "conn_type": "databricks",
            "host": state.url,
            "login": who.client_id,
            "password": who.client_secret,
            "extra": {"service_principal_oauth": True},
        }
        return {
            "AIRFLOW_CONN_LAKEBASE_DEFAULT": json.dumps(lakebase),
            "AIRFLOW_CONN_DATABRICKS_DEFAULT": json.dumps(databricks),
        }

    def connect(self, principal: Principal | None = None) -> psycopg.Connection[Any]:
        """
        Log in through the gateway with a new credential; the session is autocommit.

        :param principal: The identity to log in as; by default the owner.
        """
        state = self.state
        who = principal or state.owner
        with httpx.Client(
            base_url=state.url, timeout=60, trust_env=False, verify=client_context(self.folder)
        ) as api:
            grant = {"grant_type": "client_credentials", "scope": "all-apis"}
            token = api.post("/oidc/v1/token", auth=(who.client_id, who.client_secret), data=grant)
            bearer = f"Bearer {token.raise_for_status().json()['access_token']}"
            minted = api.post(
                "/api/2.0/postgres/credentials",
                json={"endpoint": state.endpoint},
                headers={"Authorization": bearer},
            )
        return psycopg.connect(
            host="127.0.0.1",
            port=state.port,
            dbname=DEFAULT_DATABASE,
            user=who.client_id,
            password=minted.raise_for_status().json()["token"],
            sslmode="verify-full",
            sslrootcert=str(self.folder / "ca.pem"),
            autocommit=True,
        )

    def fault(
        self, name: FaultName, *, times: int | None = None, seconds: float | None = None
    ) -> dict[str, Any]:
        """
        Activate a fault.

        :param name: The fault.
        :param times: How many times it occurs; None for until it is cleared.
        :param seconds: The duration in seconds, for faults that have one.
        """
        return self._admin("POST", f"/faults/{name.value}", {"times": times, "seconds": seconds})

    def faults(self) -> dict[str, Any]:
        """Return the active faults."""
        return self._admin("GET", "/faults")

    def clear_faults(self) -> list[str]:
        """Clear all faults, and return their names."""
        return list(self._admin("DELETE", "/faults")["cleared"])

    def _admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        state = self.state
        if not self.is_running:
            raise LocalServerError(
                f"No local Lakebase runs in {self.folder}; start it with `{self.command('up')}`."
            )
        answer = httpx.request(
            method,
            f"{state.url}/local{path}",
            json=body,
            headers={"x-lakets-admin": state.admin_token},
            timeout=60,
            trust_env=False,  # the server is on this machine, so no proxy applies
            verify=client_context(self.folder),
        )
        if answer.is_error:
            raise LocalServerError(f"{method} {path} was refused: {answer.text}")
        return dict(answer.json())

    def _with_log(self, message: str, log: str) -> str:
        lines = log.splitlines()[-20:]
        return "\n".join([f"{message}; the end of {self.log_file}:", *lines])


def _plain(folder: Path) -> Path:
    """Return a path without symbolic links; if the links form a cycle, return the path itself."""
    return Path(os.path.realpath(folder))
