"""
The local Lakebase as a program: Postgres, feed, REST API and gateway, until SIGTERM.

Run as ``python -m airflow_provider_lakets.local.server FOLDER``. Other processes read from
``FOLDER/lakebase.json`` how to connect (see ``client``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import shlex
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.api.admin import admin_routes
from airflow_provider_lakets.local.api.control_plane import ControlPlane
from airflow_provider_lakets.local.api.databases import Databases
from airflow_provider_lakets.local.api.faults import Faults
from airflow_provider_lakets.local.api.feeds import LocalFeeds
from airflow_provider_lakets.local.branches import Branches
from airflow_provider_lakets.local.client import ERROR, EXPLAINED
from airflow_provider_lakets.local.door.authenticator import LakebaseAuthenticator
from airflow_provider_lakets.local.door.authority import certificate, server_context
from airflow_provider_lakets.local.door.credentials import Issuer
from airflow_provider_lakets.local.door.gateway import Gateway
from airflow_provider_lakets.local.environment import forget_other_postgres
from airflow_provider_lakets.local.feed.control import DEFAULT_INTERVAL
from airflow_provider_lakets.local.lakebase import LocalLakebase
from airflow_provider_lakets.local.pg.account import Account
from airflow_provider_lakets.local.processes import at_end_of_input, try_lock
from airflow_provider_lakets.local.state import STATE_FILE, State
from airflow_provider_lakets.local.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

_PREDECESSOR_SECONDS = 20.0


class AlreadyServedError(LakeTSError):
    """Another process serves the folder."""


class PortTakenError(LakeTSError):
    """A requested port is not available."""


async def serve(options: argparse.Namespace) -> None:
    """Start all parts, publish their addresses, and stop them on a signal at any time."""
    stop = _stop_event(is_attached=options.attached)
    folder: Path = options.folder.resolve()
    async with contextlib.AsyncExitStack() as stack:
        await _lock_folder(folder, stack)
        state = State.load(folder)
        state.gone(folder)  # a killed server did not do this
        lakebase = LocalLakebase(folder, version=options.version, feed_interval=options.feed_interval)
        api = _bind(options.bind, options.api_port or state.api_port, is_requested=bool(options.api_port))
        stack.callback(api.close)
        stack.push_async_callback(asyncio.to_thread, lakebase.stop)
        if not await _start(lakebase, stop):
            return
        url = _url(options.host or "127.0.0.1", api.getsockname()[1], is_tls=options.api_tls)
        world = World(state, lakebase, host=options.host, version=options.version)
        issuer = Issuer(url)
        faults = Faults()
        branches = Branches(folder / "branches", options.version, world.prepare)
        branches.adopt(world.branch, lakebase.postgres)
        leaf = certificate(folder, world.hosts())
        gateway = Gateway(
            LakebaseAuthenticator(world.workspace, issuer, faults, branches, world.endpoint),
            server_context(leaf),
        )
        stack.push_async_callback(_stop_serving, gateway, branches, lakebase)
        port = await _listen(gateway, world.addresses(), options, state.port)
        feeds = LocalFeeds(lakebase)
        app = ControlPlane(world.workspace, url, issuer, faults, feeds, Databases(branches)).app()
        app.include_router(admin_routes(state.admin_token, faults, feeds, lakebase, cut=gateway.cut))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        config.load()
        if options.api_tls:
            config.ssl = server_context(leaf)  # the options of uvicorn only take files
        server = uvicorn.Server(config)
        state.ready(folder, pid=os.getpid(), url=url, port=port, api_port=api.getsockname()[1])
        stack.callback(state.gone, folder)
        log.info("Ready: %s, Postgres on port %d", url, port)
        await _serve_until(server, api, stop)


async def _lock_folder(folder: Path, stack: contextlib.AsyncExitStack) -> None:
    """Lock a folder until the end; wait for a previous server that is stopping."""
    lock = stack.enter_context((folder / "server.lock").open("a", encoding="utf-8"))
    deadline = asyncio.get_running_loop().time() + _PREDECESSOR_SECONDS
    while not try_lock(lock):
        if State.load(folder).pid or asyncio.get_running_loop().time() > deadline:
            raise AlreadyServedError(
                f"A local Lakebase already runs in {folder}. "
                f"Use it, or stop it: `lakets local down --folder {shlex.quote(str(folder))}`."
            )
        await asyncio.sleep(0.05)


def _stop_event(*, is_attached: bool) -> asyncio.Event:
    """Return an event that is set by a signal, or when the parent process is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if is_attached:
        at_end_of_input(partial(_set_from_thread, loop, stop))
    return stop


def _set_from_thread(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is already closed
        loop.call_soon_threadsafe(event.set)


async def _start(lakebase: LocalLakebase, stop: asyncio.Event) -> bool:
    """Start the Lakebase unless a stop is requested first; return whether it runs."""
    starting = asyncio.create_task(asyncio.to_thread(lakebase.start))
    await _first_of(starting, stop)
    if not stop.is_set():
        await starting
        return True
    lakebase.give_up_start()
    await asyncio.wait([starting])  # a thread cannot be cancelled
    log.info("Stopped while starting: %s", starting.exception())
    return False


async def _first_of(task: asyncio.Task[Any], stop: asyncio.Event) -> None:
    """Return when a task is done or a stop is requested."""
    end = asyncio.create_task(stop.wait())
    await asyncio.wait([task, end], return_when=asyncio.FIRST_COMPLETED)
    end.cancel()


async def _serve_until(server: uvicorn.Server, api: socket.socket, stop: asyncio.Event) -> None:
    """Serve the REST API until a stop is requested."""
    with contextlib.suppress(asyncio.CancelledError):
        serving = asyncio.create_task(server._serve([api]))  # not serve(), which installs signal handlers
        await _first_of(serving, stop)
        server.should_exit = True
        await serving


async def _stop_serving(gateway: Gateway, branches: Branches, lakebase: LocalLakebase) -> None:
    """Stop the servers while the gateway still passes their last messages to the clients."""
    gateway.stop_listening()
    await asyncio.to_thread(branches.stop)
    await asyncio.to_thread(lakebase.stop)
    await gateway.close()


def _url(host: str, port: int, *, is_tls: bool) -> str:
    """Return the URL of the workspace, without the port if it is the default."""
    scheme, usual = ("https", 443) if is_tls else ("http", 80)
    return f"{scheme}://{host}" if port == usual else f"{scheme}://{host}:{port}"


def _bind(address: str | None, port: int, *, is_requested: bool) -> socket.socket:
    """Bind a port; if it is taken, bind a free one, unless the port was requested."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address or "127.0.0.1", port))
    except OSError as err:
        if is_requested:
            raise PortTakenError(_no_port(address or "127.0.0.1", port, "--api-port", err)) from err
        listener.bind((address or "127.0.0.1", 0))
    listener.listen()  # before this, another process could take the same port
    return listener


async def _listen(gateway: Gateway, loopback: Sequence[str], options: argparse.Namespace, last: int) -> int:
    addresses = [options.bind] if options.bind else loopback
    try:
        return await gateway.listen(addresses, options.port or last)
    except OSError as err:
        if options.port:
            raise PortTakenError(_no_port(", ".join(addresses), options.port, "--port", err)) from err
        return await gateway.listen(addresses, 0)


def _no_port(address: str, port: int, option: str, error: OSError) -> str:
    return (
        f"Port {port} of {address} is not available: {error.strerror or error}. "
        f"Set another port with {option}, or leave the option out to use a free port."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a local Lakebase."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_lakets.local.server", description=main.__doc__
    )
    parser.add_argument("folder", type=Path, help=f"folder of all files, including {STATE_FILE}")
    parser.add_argument("--version", type=int, default=16, help="Postgres major version: 16, 17 or 18")
    parser.add_argument(
        "--feed-interval", type=float, default=DEFAULT_INTERVAL, help="seconds between two rounds of the feed"
    )
    parser.add_argument("--host", help="name of this machine for others; by default loopback only")
    parser.add_argument("--bind", help="address to listen on; by default loopback only")
    parser.add_argument(
        "--port", type=int, default=0, help="Postgres port; 0 for the last port used, or a free port"
    )
    parser.add_argument("--api-port", type=int, default=0, help="port of the REST API; 0 as for --port")
    parser.add_argument(
        "--api-tls", action="store_true", help="also serve the REST API over TLS, which --host needs"
    )
    parser.add_argument("--attached", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    forget_other_postgres()
    os.umask(0o077)  # only the owner may read the files in the folder
    Account().make_private(options.folder)
    uvloop.install()
    try:
        asyncio.run(serve(options))
    except LakeTSError as err:  # the message says what to do; a traceback would not help
        sys.stderr.write(f"{ERROR}{err}\n")
        return EXPLAINED
    return 0


if __name__ == "__main__":
    sys.exit(main())
