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
    :param silent_at: What a caller says to get no answer, once; its connection stays open.
    :param deaf_at: What a caller says so that nothing more is read from it.
    """

    def __init__(
        self, path: str, greetings: list[bytes], *, silent_at: bytes = b"", deaf_at: bytes = b""
    ) -> None:
        self._path = path
        self._greetings = greetings
        self._silent_at = silent_at
        self._deaf_at = deaf_at
        self._is_over = threading.Event()
        self.callers = 0

    def __enter__(self) -> Relay:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
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
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        # Either side may go first; then the other has nobody left to talk to.
        with source, sink, contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._deaf_at and self._deaf_at in data:
                    self._is_over.wait()
                if self._silent_at and self._silent_at in data:
                    self._silent_at = b""
                    continue
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


def refusal(sqlstate: str, message: str) -> bytes:
    """Return the message with which Postgres ends a login."""
    values = ("FATAL", "FATAL", sqlstate, message)
    fields = b"".join(f"{name}{value}\0".encode() for name, value in zip("SVCM", values, strict=True))
    return b"E" + struct.pack("!I", len(fields) + 5) + fields + b"\0"
