"""
The gateway of the local Lakebase: it does TLS, checks the password, and connects to the server.

It reads messages only until the login is complete; after that, it passes bytes in both directions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import struct
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

_LOGIN_SECONDS = 60

# The messages of the Postgres protocol (version 3) that are exchanged before a session begins.
_PROTOCOL_3 = 196608
_SSL_REQUEST = 80877103
_GSS_REQUEST = 80877104
_CANCEL_REQUEST = 80877102

_CLEARTEXT_PASSWORD = struct.pack("!cii", b"R", 8, 3)
_STARTUP_LIMIT = 10_000  # bytes, as in the server
_PASSWORD_LIMIT = 65_536
_HELD_LIMIT = 2 * _PASSWORD_LIMIT  # of unread bytes: a login never needs more


class RefusedError(Exception):
    """
    A login that is rejected with a Postgres error.

    :param sqlstate: The error code of Postgres.
    :param message: What was asked and what was found.
    :param hint: What to do.
    """

    def __init__(self, sqlstate: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.hint = hint


class Authenticator(Protocol):
    """Decides about logins; each method may raise :class:`RefusedError`."""

    async def before_login(self, host: str) -> None:
        """
        Called for each connection before the login, to reject or delay it.

        :param host: The host name or address that the client connects to.
        """

    async def authenticate(self, host: str, role: str, password: str) -> Path:
        """
        Check a password, and return the Unix socket of the server for the session.

        :param host: The host name or address that the client connected to.
        :param role: The Postgres role to log in as.
        :param password: A database credential, or the native password of a role.
        """

    def servers(self) -> Sequence[Path]:
        """Return the Unix sockets of every server, for cancel requests."""


class Channel(asyncio.Protocol):
    """One side of a session: data is held until it is read or a peer is joined, then passed on."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._held = bytearray()
        self._news = asyncio.Event()
        self._peer: Channel | None = None
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass the data to the peer, or hold it until it is read."""
        if self._peer is not None:
            self._peer.send(data)
        elif len(self._held) + len(data) > _HELD_LIMIT:
            self._held.clear()
            self.transport.abort()
        else:
            self._held += data
            self._news.set()

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other side too."""
        self.ended.set()
        self._news.set()
        if self._peer is not None:
            self._peer.transport.close()

    def pause_writing(self) -> None:
        """Stop reading from the other side while this side cannot send."""
        if self._peer is not None and not self._peer.transport.is_closing():
            self._peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Resume reading from the other side."""
        if self._peer is not None and not self._peer.transport.is_closing():
            self._peer.transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Send data, unless the connection is closing: uvloop's transports raise an error then."""
        if not self.transport.is_closing():
            self.transport.write(data)

    @property
    def holds_unread(self) -> bool:
        """Return whether unread data is held."""
        return bool(self._held)

    async def read(self, count: int) -> bytes:
        """
        Return exactly this many bytes.

        :raises ConnectionError: if the connection is closed before.
        """
        while len(self._held) < count:
            if self.ended.is_set():
                raise ConnectionError("hung up")
            self._news.clear()
            await self._news.wait()
        data = bytes(self._held[:count])
        del self._held[:count]
        return data

    def join(self, peer: Channel) -> None:
        """Pass the held data and all further data to the peer."""
        self._peer = peer
        peer.send(bytes(self._held))
        self._held.clear()
        if self.ended.is_set():
            peer.transport.close()


class Gateway:
    """
    Listen for Postgres clients and connect those that are admitted to a server.

    :param authenticator: Decides about logins.
    :param tls: The TLS context of the server; sessions without TLS are rejected.
    """

    def __init__(self, authenticator: Authenticator, tls: ssl.SSLContext) -> None:
        self._authenticator = authenticator
        self._tls = tls
        self._tls.sni_callback = _remember_name
        self._listeners: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: set[Channel] = set()

    async def listen(self, addresses: Sequence[str], port: int) -> int:
        """
        Start listening.

        :param addresses: IP addresses; all use the same port.
        :param port: The TCP port; 0 for a free one.
        :returns: The port.
        """
        loop = asyncio.get_running_loop()
        for address in addresses:
            listener = await loop.create_server(self._welcome, address, port, backlog=512)
            port = listener.sockets[0].getsockname()[1]
            self._listeners.append(listener)
        return port

    def stop_listening(self) -> None:
        """Accept no more connections; existing sessions continue."""
        for listener in self._listeners:
            listener.close()

    async def close(self) -> None:
        """Stop listening and close every session."""
        self.stop_listening()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> int:
        """Close every session abruptly, like a broken network, and return how many there were."""
        sessions = list(self._sessions)
        for session in sessions:
            session.transport.abort()
        return len(sessions)

    def _welcome(self) -> Channel:
        client = Channel()
        task = asyncio.get_running_loop().create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return client

    async def _serve(self, client: Channel) -> None:
        await asyncio.sleep(0)  # connection_made comes first
        self._sessions.add(client)
        try:
            server = await asyncio.wait_for(self._log_in(client), _LOGIN_SECONDS)
            if server is not None:
                await client.ended.wait()
        except RefusedError as err:
            client.send(_fatal(err.sqlstate, str(err), err.hint))
        except asyncio.TimeoutError:
            client.send(_fatal("57014", f"The login took longer than {_LOGIN_SECONDS:g} seconds."))
        except (ConnectionError, ssl.SSLError, struct.error, UnicodeDecodeError) as err:
            log.debug("A login was abandoned: %s", type(err).__name__)
        except Exception as err:  # a lost transport or a server that did not start ends only this login
            log.warning("A login failed", exc_info=True)
            reason = str(err).partition("\n")[0] or type(err).__name__
            client.send(
                _fatal("58000", f"The local Lakebase cannot open this session: {reason}", "See server.log.")
            )
        finally:
            self._sessions.discard(client)
            client.transport.close()

    async def _log_in(self, client: Channel) -> Channel | None:
        """Process a client's login; return None after a cancel request, which has no session."""
        host = client.transport.get_extra_info("sockname")[0]
        is_private = False
        while True:
            length, code = struct.unpack("!ii", await client.read(8))
            if not 8 <= length <= _STARTUP_LIMIT:
                raise RefusedError("08P01", "invalid length of startup packet")
            body = await client.read(length - 8)
            if code == _SSL_REQUEST and not is_private:
                host = await self._start_tls(client) or host
                is_private = True
            elif code == _GSS_REQUEST:
                client.send(b"N")
            elif code == _CANCEL_REQUEST:
                await self._cancel(body)
                return None
            elif code >> 16 == 3:
                break
            else:
                raise RefusedError("0A000", f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}")
        if not is_private:
            raise RefusedError(
                "28000", "This endpoint takes no connection without TLS.", "Set sslmode=require or stricter."
            )
        return await self._authenticate(client, host, _read_parameters(body))

    async def _start_tls(self, client: Channel) -> str | None:
        """Start TLS, and return the host name that the client requested."""
        if client.holds_unread:  # an attacker in the middle could have injected it
            raise RefusedError("08P01", "received unencrypted data after SSL request")
        if client.transport.is_closing():
            raise ConnectionError("hung up")
        loop = asyncio.get_running_loop()
        client.transport.pause_reading()
        client.send(b"S")
        transport = await loop.start_tls(client.transport, client, self._tls, server_side=True)
        if transport is None:
            raise ConnectionError("hung up")
        client.transport = transport
        return getattr(transport.get_extra_info("ssl_object"), "name_asked_for", None)

    async def _authenticate(self, client: Channel, host: str, parameters: dict[str, str]) -> Channel:
        role = parameters.get("user", "")
        await self._authenticator.before_login(host)
        client.send(_CLEARTEXT_PASSWORD)
        kind, length = struct.unpack("!ci", await client.read(5))
        if kind != b"p" or not 4 < length <= _PASSWORD_LIMIT:
            raise RefusedError("08P01", "expected a password")
        password = (await client.read(length - 4)).rstrip(b"\0").decode()
        backend = await self._open(await self._authenticator.authenticate(host, role, password))
        backend.send(_startup(parameters))
        backend.join(client)
        client.join(backend)
        return backend

    async def _open(self, socket: Path) -> Channel:
        loop = asyncio.get_running_loop()
        try:
            _, backend = await loop.create_unix_connection(Channel, str(socket))
        except OSError as err:
            raise RefusedError(
                "57P03", "the database system is starting up", "Try again in a moment."
            ) from err
        return backend

    async def _cancel(self, body: bytes) -> None:
        """Send a cancel request to every server; only the server that issued the key acts on it."""
        for socket in self._authenticator.servers():
            with contextlib.suppress(RefusedError):
                backend = await self._open(socket)
                backend.send(struct.pack("!ii", 8 + len(body), _CANCEL_REQUEST) + body)
                await backend.ended.wait()


def _remember_name(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    connection.name_asked_for = name  # type: ignore[attr-defined]


def _read_parameters(body: bytes) -> dict[str, str]:
    """
    Read the parameters of a startup message.

    :param body: The message after length and protocol version: names and values, each ended by a
        zero byte.
    """
    names_and_values = body.rstrip(b"\0").split(b"\0")
    text = [part.decode() for part in names_and_values]
    return dict(zip(text[::2], text[1::2], strict=False))


def _startup(parameters: dict[str, str]) -> bytes:
    """Return a startup message."""
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack("!ii", len(body) + 8, _PROTOCOL_3) + body


def _fatal(sqlstate: str, message: str, hint: str = "") -> bytes:
    """Return an error message that ends the session."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message, "H": hint}
    body = b"".join(f"{code}{value}\0".encode() for code, value in fields.items() if value) + b"\0"
    return struct.pack("!ci", b"E", len(body) + 4) + body
