"""The few messages of the Postgres protocol (version 3) that are exchanged before a session begins."""

from __future__ import annotations

import struct

PROTOCOL_3 = 196608
SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102

CLEARTEXT_PASSWORD = struct.pack("!cii", b"R", 8, 3)
STARTUP_LIMIT = 10_000  # bytes; the server's own
PASSWORD_LIMIT = 65_536


def parameters(body: bytes) -> dict[str, str]:
    """
    Read the parameters of a startup message.

    :param body: What follows length and protocol version: names and values, each ended by a zero byte.
    """
    names_and_values = body.rstrip(b"\0").split(b"\0")
    text = [part.decode() for part in names_and_values]
    return dict(zip(text[::2], text[1::2], strict=False))


def startup(parameters: dict[str, str]) -> bytes:
    """Write a startup message."""
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack("!ii", len(body) + 8, PROTOCOL_3) + body


def fatal(sqlstate: str, message: str, hint: str = "") -> bytes:
    """Write an error that ends the session."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message, "H": hint}
    body = b"".join(f"{code}{value}\0".encode() for code, value in fields.items() if value) + b"\0"
    return struct.pack("!ci", b"E", len(body) + 4) + body
