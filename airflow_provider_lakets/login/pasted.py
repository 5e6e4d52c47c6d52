"""Parse pasted connection strings: postgresql://role@host/database?sslmode=require."""

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
    """Return whether a text begins with the scheme of a connection string."""
    return text.strip().lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def parse(text: str, where: str) -> dict[str, Any]:
    """
    Split a connection string into host, port, login, password, schema and extra.

    This is stricter than libpq and Airflow. If a special character is not percent-encoded, they
    can read a part of the password as another part, and show it in an error.

    :param text: The string; messages never contain any part of it.
    :param where: The source of the string, for the message.
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
        found = _split(text)
    except ValueError:
        found = None
    if found is None:
        # Raised outside the except block, because errors of urllib may contain the password.
        raise LakebaseSettingError(
            f"{where} cannot be read as {FORM}. Write the characters / : ? # @ % [ ] and spaces in a role, a "
            "password or a database percent-encoded (@ is %40, / is %2F)."
        )
    return found


def pasted_connection(string: str, conn_id: str) -> Connection:
    """
    Return a connection made from a connection string.

    :param string: The string; a password in it is a native Postgres password.
    :param conn_id: The name of the connection in messages.
    """
    from airflow.sdk import Connection as AirflowConnection

    found = parse(string, conn_id)
    named = found.get("extra") or {}
    if not (found.get("host") or any(map(named.get, ("host", *PLACE)))):
        # Without a host, the database of the environment would be used silently.
        raise LakebaseSettingError(
            f"{conn_id} names no host. Give a connection string, {FORM} or "
            "lakebase:///<database>?project=<project>; or none, to use a connection or the environment."
        )
    return AirflowConnection(
        conn_id=conn_id, conn_type="lakebase", **{**found, "extra": json.dumps(found.get("extra") or {})}
    )


def _split(text: str) -> dict[str, Any] | None:
    """Return the parts; None or a ValueError if one of them is invalid."""
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
