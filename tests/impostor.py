"""An impostor that answers like Postgres with its own certificate, and records all input."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSS_REQUEST = struct.pack("!II", 8, 80877104)
ASK_FOR_PASSWORD = b"R" + struct.pack("!II", 8, 3)


class Impostor:
    """
    Listen on a loopback port, with or without TLS; request a clear-text password, and refuse it.

    :param folder: Where the authority's files go.
    :param host: Whose name is in the certificate.
    """

    def __init__(self, folder: Path, host: str) -> None:
        authority = trustme.CA()
        self.authority = str(folder / "impostor.pem")
        authority.cert_pem.write_to_path(self.authority)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(self._context)
        self.received: list[bytes] = []
        self.callers = 0

    def __enter__(self) -> Impostor:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self.callers += 1
            caller.settimeout(10)
            with caller, contextlib.suppress(OSError):
                self._serve(caller)

    def _serve(self, caller: socket.socket) -> None:
        """Accept any encryption that the client requests, or none."""
        first = caller.recv(65536)
        if first == GSS_REQUEST:
            caller.sendall(b"N")
            first = caller.recv(65536)
        if first == SSL_REQUEST:
            caller.sendall(b"S")
            caller = self._context.wrap_socket(caller, server_side=True)
            first = caller.recv(65536)
        with caller:
            # A client that rejects the certificate reports this in TLS, and sends nothing else.
            if first:
                self.received.append(first)
                caller.sendall(ASK_FOR_PASSWORD)
                self.received.append(caller.recv(65536))
