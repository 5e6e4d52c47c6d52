"""Any bytes before a login, cut off anywhere, end only their own connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_provider_lakets.local.door.authority import certificate, client_context, server_context
from airflow_provider_lakets.local.door.gateway import Gateway, RefusedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
MANY = 10_000


class Nobody:
    """Admits nobody, and raises errors."""

    async def before_login(self, host: str) -> None: ...

    async def authenticate(self, host: str, role: str, password: str) -> Any:
        if role == "broken":
            raise KeyError(role)
        raise RefusedError("28P01", "no")

    def servers(self) -> Sequence[Path]:
        return []


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ssl.SSLContext]:
    gc.collect()
    gc.freeze()  # the collections below look at what came since: not at all of Airflow, each time
    yield server_context(certificate(tmp_path_factory.mktemp("authority"), ["127.0.0.1"]))
    gc.unfreeze()


def run(loop: Callable[[], asyncio.AbstractEventLoop], attempts: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    """Run on a kind of loop: those of uvloop, which the server uses, tolerate less."""
    made = loop()
    try:
        return made.run_until_complete(attempts)
    finally:
        made.close()


def hang_up_at_once(port: int, pieces: Sequence[bytes]) -> None:
    """Send everything and disconnect before the gateway has read any of it."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as raw:
        for piece in pieces:
            raw.sendall(piece)


async def send(tls: ssl.SSLContext, attempts: Sequence[Sequence[bytes]], end: str) -> list[Any]:
    """Make connections one by one; return the errors of the loop, and the last answer."""
    troubles: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    gateway = Gateway(Nobody(), tls)
    port = await gateway.listen(["127.0.0.1"], 0)
    for pieces in attempts:
        if end == "at once":
            hang_up_at_once(port, pieces)
            continue
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if end == "read":
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 5)
        except (
            OSError
        ):  # the gateway has closed the connection: reset, broken pipe, or not connected any more
            pass
        finally:
            writer.transport.abort()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(SSL_REQUEST)
    answer = await asyncio.wait_for(reader.readexactly(1), 5)
    writer.transport.abort()
    await gateway.close()
    gc.collect()  # a task whose error nobody has seen says so when it is collected
    gc.freeze()  # what hypothesis remembers grows: the next collection looks at what comes now
    await asyncio.sleep(0)
    return [*troubles, answer]


LOOPS = pytest.mark.parametrize(
    "loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"]
)


def startup(**parameters: str) -> bytes:
    body = struct.pack("!i", 196608)
    body += b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


PIECES = (
    st.binary(max_size=60)
    | st.sampled_from([SSL_REQUEST, struct.pack("!ii", 8, 80877104), startup(user="a"), b"\x16\x03\x01\x02"])
    | st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1)).map(
        lambda pair: struct.pack("!ii", *pair)
    )
)


ENDS = st.sampled_from(["abort", "read", "at once"])


@LOOPS
@given(attempts=st.lists(st.lists(PIECES, max_size=4), min_size=1, max_size=5), end=ENDS)
@example(attempts=[[SSL_REQUEST]], end="abort")
@example(attempts=[[SSL_REQUEST, b"\x16\x03\x01"]], end="abort")
@example(attempts=[[]], end="abort")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_packet_brings_the_door_down(
    tls: ssl.SSLContext, loop: Callable[[], Any], attempts: list[list[bytes]], end: str
) -> None:
    assert run(loop, send(tls, attempts, end)) == [b"S"]


@pytest.mark.slow
@LOOPS
@given(attempts=st.lists(st.lists(PIECES, max_size=6), min_size=1, max_size=5), end=ENDS)
@settings(max_examples=MANY, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ten_thousand_do_not_either(
    tls: ssl.SSLContext, loop: Callable[[], Any], attempts: list[list[bytes]], end: str
) -> None:
    assert run(loop, send(tls, attempts, end)) == [b"S"]


class Slow(Nobody):
    """Makes all clients wait."""

    async def before_login(self, host: str) -> None:
        await asyncio.sleep(60)


def flood(port: int, authority: Path) -> int:
    """Start a login, and keep sending while the gateway is busy; return how much it accepted."""
    context = client_context(authority)
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.sendall(SSL_REQUEST)
        plain.recv(1)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as private:
            private.sendall(startup(user="a"))
            sent = 0
            with contextlib.suppress(OSError):
                while sent < 64 * 1024 * 1024:
                    private.sendall(b"x" * 65_536)
                    sent += 65_536
            return sent


def test_a_flood_before_the_login_is_cut_off(tmp_path: Path) -> None:
    async def run() -> int:
        gateway = Gateway(Slow(), server_context(certificate(tmp_path, ["127.0.0.1"])))
        port = await gateway.listen(["127.0.0.1"], 0)
        taken = await asyncio.to_thread(flood, port, tmp_path)
        await gateway.close()
        return taken

    assert asyncio.run(run()) < 16 * 1024 * 1024
