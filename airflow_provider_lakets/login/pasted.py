"""Connection strings as people paste them: postgresql://role@host/database?sslmode=require."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from airflow_provider_lakets.exceptions import LakebaseSettingError
from airflow_provider_lakets.login.place import PLACE

if TYPE_CHECKING:
    from airflow.sdk import Connection

SCHEMES = ("postgresql", "postgres", "lakebase")

FORM = "postgresql://<role>@<host>/<database>"


def is_pasted(text: str) -> bool:
    """Return whether a text begins as a connection string does."""
    return text.strip().lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def parse(text: str, where: str) -> dict[str, Any]:
    """
    Take a connection string apart: host, port, login, password, schema, and the rest as extra.

    Stricter than libpq and than Airflow: where a character that should have been percent-encoded
    lets a password slide into another part, each of them reads something else, and tells it in its
    error.

    :param text: The string; no part of it is ever repeated in a message.
    :param where: Where it was found, for the message.
    """
    text = text.strip()
    if not text:
        raise LakebaseSettingError(f"{where} is empty. Give a connection string: {FORM}")
    if not is_pasted(text):
        raise LakebaseSettingError(
            f"{where} is not a connection string: it does not begin with postgresql:// or lakebase://. "
            f"Give one of this form, without quotes around it: {FORM}"
        )
    try:
        found = _take_apart(text)
    except ValueError:
        found = None
    if found is None:
        # Outside the except: urllib's errors repeat what they could not read, which may be the
        # password.
        raise LakebaseSettingError(
            f"{where} cannot be read as {FORM}. Write the characters / : ? # @ % [ ] and spaces in a role, a "
            "password or a database percent-encoded (@ is %40, / is %2F)."
        )
    return found


def pasted_connection(string: str, conn_id: str) -> Connection:
    """
    Return a connection of a connection string.

    :param string: The string; a password in it is the role's own.
    :param conn_id: What to call the connection in messages.
    """
    from airflow.sdk import Connection as AirflowConnection

    found = parse(string, conn_id)
    named = found.get("extra") or {}
    if not (found.get("host") or any(map(named.get, ("host", *PLACE)))):
        # The environment's database would be taken without a word.
        raise LakebaseSettingError(
            f"{conn_id} names no host. Give a connection string, {FORM} or "
            "lakebase:///<database>?project=<project>; or none, to use a connection or the environment."
        )
    return AirflowConnection(
        conn_id=conn_id, conn_type="lakebase", **{**found, "extra": json.dumps(found.get("extra") or {})}
    )


def _take_apart(text: str) -> dict[str, Any] | None:
    """Return the parts; None, or a ValueError, where one is not what it should be."""
    if not text.isprintable():
        return None
    parts = urlsplit(text)
    user, _, place = parts.netloc.rpartition("@")
    database = parts.path.removeprefix("/")
    if parts.fragment or "#" in text or "@" in database + parts.query or "/" in database:
        return None
    login, _, password = user.partition(":")
    extra = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), errors="strict")
    if len(dict(extra)) != len(extra):
        return None
    host, port = _host_and_port(place)
    fields = {"host": host, "login": login, "password": password, "schema": database}
    found: dict[str, Any] = {name: unquote(value, errors="strict") for name, value in fields.items() if value}
    return {**found, **({"port": port} if port else {}), "extra": dict(extra)}


def _host_and_port(place: str) -> tuple[str, int | None]:
    if place.startswith("["):  # an IPv6 address
        host, bracket, port = place[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError("no address")
        port = port[1:]
    else:
        host, _, port = place.partition(":")
    if not port:
        return host, None
    if not (port.isascii() and port.isdecimal()):
        raise ValueError("no port")
    return host, int(port)
