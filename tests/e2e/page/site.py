"""A second API server of one Airflow, below a prefix, with its own users and connections."""

from __future__ import annotations

import json
import secrets
import urllib.request
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.local.api.faults import FaultName
from airflow_provider_lakets.local.demo.airflow.server import AirflowServer
from tests.e2e.airflow import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_lakets.local.client import LocalServer

PREFIX = "/team/airflow"
# By name; the role says what each may do, and none that the user may do nothing.
USERS = {"admin": "admin", "viewer": "viewer", "nobody": ""}
# Beside the database of each, one that sleeps and one that nobody listens at.
ASLEEP, DOWN, NATIVE = "page_asleep", "page_down", "page_native"


class Site(AirflowServer):
    """
    The API server alone: the metadata database, with the DAGs in it, is another Airflow's.

    :param home: Its AIRFLOW_HOME; made when missing.
    :param dags: The DAG folder.
    :param logs: Where the other writes the logs of its tasks.
    :param metadata: The URL of the metadata database.
    :param connections: Connections, in the form of AIRFLOW_CONN_ variables, by name.
    """

    def __init__(
        self, home: Path, *, dags: Path, logs: Path, metadata: str, connections: dict[str, str]
    ) -> None:
        shown = [name.removeprefix("AIRFLOW_CONN_").lower() for name in connections]
        super().__init__(
            home,
            dags=dags,
            parts=(),
            environment={
                **connections,
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata,
                "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs),
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
                    f"{name}:{role}" for name, role in USERS.items()
                ),
                "AIRFLOW__LAKETS__PAGE_CONNECTIONS": ",".join(
                    name for name in shown if name.startswith("page_")
                ),
            },
        )
        self.root = self.url + PREFIX
        self._env["AIRFLOW__API__BASE_URL"] = self.root
        self.page = f"{self.root}/lakets/"
        self.users = {name: secrets.token_urlsafe(24) for name in USERS}

    def _start(self) -> None:
        self._passwords.write_text(json.dumps(self.users))
        self._launch("api-server", "api-server")

    def wait_ready(self) -> None:
        """Return once it answers."""
        self.wait_started()
        wait_until(self._answers, 300, "the second API server answers", self._told)

    def token(self, user: str) -> str:
        """Log a user in, and return the session's token."""
        return str(
            self._post("/auth/token", {"username": user, "password": self.users[user]})["access_token"]
        )

    def _answers(self) -> bool:
        self.check_alive()
        try:
            return bool(self.token("admin"))
        except OSError:  # nobody listens yet
            return False

    def _post(self, path: str, body: dict[str, str]) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(
            self.root + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)

    def _told(self) -> str:
        return (self.home / "api-server.log").read_text(errors="replace")[-3000:]


def connections(cloud: LocalServer, databases: list[str]) -> dict[str, str]:
    """
    Return a connection for each database, and those that something is wrong with.

    :param cloud: The Lakebase.
    :param databases: Names that begin with ``page_``.
    """
    given = cloud.airflow_env(cloud.state.jobs)
    default = json.loads(given["AIRFLOW_CONN_LAKEBASE_DEFAULT"])
    wanted = {name: {**default, "schema": name} for name in databases}
    wanted[ASLEEP] = default
    # A password asks no workspace; at port 1 nobody listens.
    native = {"conn_type": "lakebase", "host": "127.0.0.1", "login": "somebody", "password": "very-5ecret"}
    wanted[DOWN] = wanted[NATIVE] = {**native, "port": 1}
    return {**given, **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(one) for name, one in wanted.items()}}


def put_to_sleep(cloud: LocalServer) -> None:
    """Let the endpoint sleep until its faults are cleared."""
    cloud.fault(FaultName.SUSPENDED)
