"""
The local Lakebase as a program: Postgres, feed, REST API and front door, until SIGTERM.

Run as ``python -m airflow_provider_lakets.local.server FOLDER``; other processes learn from
``FOLDER/lakebase.json`` how to reach it (see ``client``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import trustme
import uvicorn
import uvloop

from airflow_provider_lakets.local.admin import admin_routes
from airflow_provider_lakets.local.branches import Branches
from airflow_provider_lakets.local.control_plane import ControlPlane
from airflow_provider_lakets.local.credentials import Issuer
from airflow_provider_lakets.local.doorkeeper import LakebaseDoorkeeper
from airflow_provider_lakets.local.faults import Faults
from airflow_provider_lakets.local.feed import DEFAULT_INTERVAL
from airflow_provider_lakets.local.feeds import LocalFeeds
from airflow_provider_lakets.local.gateway import Gateway
from airflow_provider_lakets.local.lakebase import LocalLakebase
from airflow_provider_lakets.local.state import STATE_FILE, State
from airflow_provider_lakets.local.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)


async def serve(options: argparse.Namespace) -> None:
    """Start all parts, say where they are, and stop them on a signal."""
    folder: Path = options.folder.absolute()
    state = State.load(folder)
    lakebase = LocalLakebase(folder, version=options.version, feed_interval=options.feed_interval)
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(lakebase.start)
        stack.callback(lakebase.stop)
        api = _bind(options.bind, options.api_port or state.api_port)
        stack.callback(api.close)
        url = f"http://{options.host or '127.0.0.1'}:{api.getsockname()[1]}"
        world = World(state, lakebase, host=options.host, version=options.version)
        issuer = Issuer(url)
        faults = Faults()
        branches = Branches(folder / "branches", options.version, world.workspace)
        branches.adopt(world.branch, lakebase.postgres)
        stack.callback(branches.stop)
        gateway = Gateway(
            LakebaseDoorkeeper(world.workspace, issuer, faults, branches, world.endpoint),
            _tls(folder, world.hosts()),
        )
        port = await _listen(gateway, options.bind, world.addresses(), options.port or state.port)
        feeds = LocalFeeds(lakebase)
        app = ControlPlane(world.workspace, url, issuer, faults, feeds).app()
        app.include_router(admin_routes(state.admin_token, faults, gateway, feeds, lakebase))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
        state.ready(folder, pid=os.getpid(), url=url, port=port, api_port=api.getsockname()[1])
        stack.callback(state.gone, folder)
        log.info("Ready: %s, Postgres on port %d", url, port)
        await _until_told(server, api, options)
        await gateway.close()


async def _until_told(server: uvicorn.Server, api: socket.socket, options: argparse.Namespace) -> None:
    """Serve the REST API until a signal comes, or the process that started us is gone."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    if options.attached:
        threading.Thread(target=_at_end_of_input, args=[loop, told], daemon=True).start()
    with contextlib.suppress(asyncio.CancelledError):
        serving = asyncio.create_task(server._serve([api]))  # not serve(): that takes the signals for itself
        await asyncio.wait([serving, asyncio.create_task(told.wait())], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving


def _at_end_of_input(loop: asyncio.AbstractEventLoop, told: asyncio.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    loop.call_soon_threadsafe(told.set)


def _bind(address: str | None, port: int) -> socket.socket:
    """Take a port, or a free one where it is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address or "127.0.0.1", port))
    except OSError:
        listener.bind((address or "127.0.0.1", 0))
    return listener


async def _listen(gateway: Gateway, bind: str | None, addresses: Sequence[str], port: int) -> int:
    addresses = [bind] if bind else addresses
    try:
        return await gateway.listen(addresses, port)
    except OSError:
        return await gateway.listen(addresses, 0)


def _tls(folder: Path, hosts: Sequence[str]) -> ssl.SSLContext:
    """Make certificates for this run; clients trust ``ca.pem``."""
    authority = trustme.CA(organization_name="Local Lakebase")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(context)
    return context


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a local Lakebase."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_lakets.local.server", description=main.__doc__
    )
    parser.add_argument("folder", type=Path, help=f"holds all of it, and {STATE_FILE}")
    parser.add_argument("--version", type=int, default=16, help="Postgres major version, 16 or 18")
    parser.add_argument(
        "--feed-interval", type=float, default=DEFAULT_INTERVAL, help="seconds between two rounds of the feed"
    )
    parser.add_argument("--host", help="name of the machine for others; by default this machine's loopback")
    parser.add_argument("--bind", help="address to listen on; by default loopback only")
    parser.add_argument(
        "--port", type=int, default=0, help="Postgres port; 0 for the last one used, or a free one"
    )
    parser.add_argument("--api-port", type=int, default=0, help="port of the REST API, likewise")
    parser.add_argument("--attached", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options.folder.mkdir(parents=True, exist_ok=True)
    uvloop.install()
    asyncio.run(serve(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
