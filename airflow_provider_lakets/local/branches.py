"""The Postgres servers of the branches; all except the default branch start on first use."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_lakets.local.pg.postgres import DEFAULT_DATABASE, EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.api.workspace import Branch


class Branches:
    """
    Start the servers of branches and return their sockets.

    :param folder: Where the servers of the other branches keep their data.
    :param version: Postgres major version.
    :param prepare: Creates the roles of a new server.
    """

    def __init__(self, folder: Path, version: int, prepare: Callable[[EmbeddedPostgres], None]) -> None:
        self._folder = folder
        self._version = version
        self._prepare = prepare
        self._servers: dict[str, EmbeddedPostgres] = {}
        self._starting = asyncio.Lock()
        self._changing = threading.Lock()  # a start continues in its thread even if its caller was cancelled
        self._is_over = False

    def adopt(self, branch: Branch, server: EmbeddedPostgres) -> None:
        """Use a server that already runs as the server of a branch."""
        self._servers[branch.name] = server

    async def socket(self, branch: Branch) -> Path:
        """Return the Unix socket of a branch's server; start the server if necessary."""
        return _socket(await self._server(branch.name, lambda: self._make(branch)))

    async def superuser(self, branch: Branch) -> str:
        """Return a connection string of the superuser, for database ``postgres``."""
        await self.socket(branch)
        return self._servers[branch.name].conninfo()

    async def replica(self, branch: Branch) -> Path:
        """Return the Unix socket of a branch's hot standby, which is read-only."""
        await self.socket(branch)
        primary = self._servers[branch.name]
        return _socket(await self._server(f"{branch.name}-replica", lambda: self._copy(branch, primary)))

    async def _server(self, name: str, make: Callable[[], EmbeddedPostgres]) -> EmbeddedPostgres:
        async with self._starting:
            if name not in self._servers:
                await asyncio.to_thread(self._start, name, make)
        return self._servers[name]

    def running(self) -> list[Path]:
        """Return the sockets of the running servers."""
        return [_socket(server) for server in self._servers.values()]

    def stop(self) -> None:
        """Stop the servers started here and start no more; adopted servers keep running."""
        with self._changing:
            self._is_over = True
            for server in self._servers.values():
                if server.data_dir.is_relative_to(self._folder):
                    server.stop()

    def _start(self, name: str, make: Callable[[], EmbeddedPostgres]) -> None:
        with self._changing:
            if self._is_over:
                raise ConnectionError("The local Lakebase is being stopped.")
            self._servers[name] = make()

    def _make(self, branch: Branch) -> EmbeddedPostgres:
        server = EmbeddedPostgres(self._data_dir(branch.name), version=self._version).start()
        try:
            server.ensure_database(DEFAULT_DATABASE)
            self._prepare(server)
        except BaseException:
            server.stop()
            raise
        return server

    def _copy(self, branch: Branch, primary: EmbeddedPostgres) -> EmbeddedPostgres:
        data_dir = self._data_dir(f"{branch.name}-replica")
        # The standby of an earlier run may need WAL that the primary has since removed.
        shutil.rmtree(data_dir, ignore_errors=True)
        return EmbeddedPostgres(data_dir, version=self._version, follows=primary).start()

    def _data_dir(self, name: str) -> Path:
        return self._folder / name.replace("/", "-")


def _socket(server: EmbeddedPostgres) -> Path:
    return Path(server.socket_dir) / ".s.PGSQL.5432"
