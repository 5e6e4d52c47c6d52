"""A loopback port in front of a Unix socket, which can reject its first clients."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

STARTING_UP = "the database system is starting up"


class Relay:
    """
    Pass connections on, after turning away as many as there are greetings.

    :param path: The Unix socket.
    :param greetings: What the first callers get to read before the connection is closed on them.
    """

    def __init__(self, path: str, greetings: list[bytes]) -> None:
        self._path = path
        self._greetings = greetings
        self.callers = 0

    def __enter__(self) -> Relay:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self.callers += 1
            if self._greetings:
                caller.recv(4096)
                caller.sendall(self._greetings.pop(0))
                caller.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._path)
            for source, sink in ((caller, server), (server, caller)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    # Either side may go first; then the other has nobody left to talk to.
    with source, sink, contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)


def refusal(sqlstate: str, message: str) -> bytes:
    """Return the message with which Postgres ends a login."""
    values = ("FATAL", "FATAL", sqlstate, message)
    fields = b"".join(f"{name}{value}\0".encode() for name, value in zip("SVCM", values, strict=True))
    return b"E" + struct.pack("!I", len(fields) + 5) + fields + b"\0"
