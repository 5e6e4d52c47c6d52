"""Check secrets before they are sent, and redact them in messages."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_provider_lakets.exceptions import LakebaseCredentialError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MESSAGE_LIMIT = 500  # characters of a message from another program; the rest is cut off

LONGEST_SECRET = 32_768  # characters; servers accept no longer header

SHORTEST_SECRET = 4  # characters; a shorter secret occurs in too many ordinary words

_RUN = 8  # characters; a text that shares this many in a row with a secret repeats a part of it

# The characters of tokens, client ids and OAuth secrets. With any other character, an HTTP client
# fails with a message that repeats the secret, or sends a wrong value.
_HEADER_SAFE = re.compile(r"[!-~]+")

_LOOKS_SECRET = re.compile(
    r"(?i)((?:token|secret|password|passwd|assertion)['\"]?\s*[:=]\s*['\"]?)[^\s'\",}&]+"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic) +[^\s'\",}]+")
_TOKEN = re.compile(r"\beyJ[\w.-]+|\bdapi\w+|\bdose\w+")
_USERINFO = re.compile(r"(?<=//)[^\s/@]*@|[^\s:@/'\"]+:[^\s:@/'\"]+@")


def clean(secret: object, what: str, conn_label: str) -> str:
    """
    Return a secret without surrounding white space, such as the newline of a secret file.

    :param secret: A token, a client id or a secret; messages never contain it.
    :param what: The kind and the source of the secret, for the message.
    :param conn_label: The Airflow connection, for the message.
    :raises LakebaseCredentialError: if the secret is not text, is empty or too long, or contains
        other characters than visible ASCII.
    """
    text = secret.strip() if isinstance(secret, str) else ""
    if _HEADER_SAFE.fullmatch(text) and len(text) <= LONGEST_SECRET:
        return text
    raise LakebaseCredentialError(
        f"{conn_label}: {what} {_fault(secret, text)}. It must be visible ASCII characters only; copy it "
        "again."
    )


def clean_password(password: str, conn_label: str) -> str:
    """Return a native Postgres password without the trailing newline of a secret file."""
    text = password.rstrip("\r\n")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = ""
    if not text or "\0" in text:
        raise LakebaseCredentialError(
            f"{conn_label}: Postgres does not accept its password (empty, with a NUL, or not Unicode). "
            "Correct the password, or remove it to log in with OAuth."
        )
    return text


def redact(text: str, secrets: Iterable[str]) -> str:
    """Mask the given secrets in a text, whole or in part, and anything that looks like a secret."""
    known = {
        form
        for secret in secrets
        if len(secret) >= SHORTEST_SECRET
        for form in (secret, quote(secret, safe=""))
    }
    for form in sorted(known, key=len, reverse=True):
        text = text.replace(form, "***")
    text = _without_parts(text, known)
    text = _BEARER.sub(r"\1 ***", _LOOKS_SECRET.sub(r"\1***", text))
    return _USERINFO.sub("***@", _TOKEN.sub("***", text))


def basic_proof(user: str, secret: str) -> str:
    """Return a user and a secret encoded as in HTTP basic authentication, to redact them, too."""
    return base64.b64encode(f"{user}:{secret}".encode()).decode()


def printable(text: str) -> str:
    """Escape control and format characters, which a terminal would interpret."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def said(text: object, secrets: Collection[str] = ()) -> str:
    """Return a message from another program in one line, without secrets and control characters."""
    line = " ".join(str(text)[: 20 * MESSAGE_LIMIT].split())
    line = printable(redact(line, secrets))
    return line if len(line) <= MESSAGE_LIMIT else f"{line[: MESSAGE_LIMIT - 3]}..."


def shown(text: object) -> str:
    """Quote a user's value for a message; mask a user before an @, and what looks like a secret."""
    quoted = printable(redact(str(text)[:200], ()))
    return f"'{quoted}'"


def shown_host(host: str) -> str:
    """Return an invalid host, quoted for a message; mask a possible password after a colon."""
    return shown(re.sub(r":(?!//|\d+(/|$))[^/]*", ":***", host))


def _without_parts(text: str, secrets: Iterable[str]) -> str:
    """Mask each sequence that occurs in a secret, since secrets may be escaped or truncated."""
    parts = {secret[at : at + _RUN] for secret in secrets for at in range(len(secret) - _RUN + 1)}
    if not parts:
        return text
    hidden = bytearray(len(text))
    for at in range(len(text) - _RUN + 1):
        if text[at : at + _RUN] in parts:
            hidden[at : at + _RUN] = b"\1" * _RUN
    marked = "".join("\0" if hide else char for char, hide in zip(text, hidden, strict=True))
    return re.sub("\0+", "***", marked)


def _fault(secret: object, text: str) -> str:
    """Return what is wrong with a secret, without repeating any of its valid characters."""
    if not isinstance(secret, str):
        return f"is not text but of type {type(secret).__name__}"
    if not text:
        return "is empty"
    if len(text) > LONGEST_SECRET:
        return f"has {len(text)} characters; the maximum is {LONGEST_SECRET}"
    at = next(place for place, char in enumerate(text, 1) if not _HEADER_SAFE.fullmatch(char))
    return f"is broken: character {at} of {len(text)} is U+{ord(text[at - 1]):04X}"
