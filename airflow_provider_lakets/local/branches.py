"""The Postgres server of each branch; those of other branches than the default one start when first used."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_lakets.local.pg.postgres import DEFAULT_DATABASE, EmbeddedPostgres

if TYPE_CHECKING:
    from airflow_provider_lakets.local.api.workspace import Branch, Workspace


class Branches:
    """
    Start servers and find their sockets.

    :param folder: Where the servers of other branches keep their data.
    :param version: Postgres major version.
    :param workspace: Knows the roles of each branch.
    """

    def __init__(self, folder: Path, version: int, workspace: Workspace) -> None:
        self._folder = folder
        self._version = version
        self._workspace = workspace
        self._servers: dict[str, EmbeddedPostgres] = {}
        self._starting = asyncio.Lock()
        self._changing = threading.Lock()  # a start goes on in its thread though nobody waits for it any more
        self._is_over = False

    def adopt(self, branch: Branch, server: EmbeddedPostgres) -> None:
        """Take a server that runs already for a branch's."""
        self._servers[branch.name] = server

    async def socket(self, branch: Branch) -> Path:
        """Return the Unix socket of a branch's server, started if need be."""
        async with self._starting:
            if branch.name not in self._servers:
                await asyncio.to_thread(self._start, branch)
        return _socket(self._servers[branch.name])

    def running(self) -> list[Path]:
        """Return the sockets of the servers that run."""
        return [_socket(server) for server in self._servers.values()]

    def stop(self) -> None:
        """Stop the servers started here, and start no more; the adopted ones belong to somebody else."""
        with self._changing:
            self._is_over = True
            for server in self._servers.values():
                if server.data_dir.is_relative_to(self._folder):
                    server.stop()

    def _start(self, branch: Branch) -> None:
        with self._changing:
            if self._is_over:
                raise ConnectionError("The local Lakebase is being stopped.")
            server = EmbeddedPostgres(
                self._folder / branch.name.replace("/", "-"), version=self._version
            ).start()
            try:
                server.ensure_database(DEFAULT_DATABASE)
                for role in branch.roles.values():
                    server.ensure_role(role.postgres_role)
            except BaseException:
                server.stop()
                raise
            self._servers[branch.name] = server


def _socket(server: EmbeddedPostgres) -> Path:
    return Path(server.socket_dir) / ".s.PGSQL.5432"
