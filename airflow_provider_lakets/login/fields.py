"""What a connection says: its fields, its extra and a pasted connection string as one, checked."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_lakets.exceptions import LakebaseSettingError
from airflow_provider_lakets.login import pasted
from airflow_provider_lakets.login.address import is_ip
from airflow_provider_lakets.login.gate import clean_password, shown, shown_host

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow.sdk import Connection as AirflowConnection

PASTED = "connection_string"

# Names in the extra that say where the database is, other than libpq's.
PLACE = ("project", "branch", "endpoint", "instance")

# What libpq calls the fields of a connection.
_FIELDS = {"host": "host", "port": "port", "user": "login", "dbname": "schema"}

# Settings of libpq that would lead a login, or what it says, elsewhere than the connection's fields do.
_REFUSED = {
    "conninfo": "Write each setting under its own name.",
    "service": "A service file is not read; write its settings into the connection.",
    "servicefile": "A service file is not read; write its settings into the connection.",
    "password": "Put it into the connection's field Password, where Airflow masks it.",
    "passfile": "A password file is not read; put the password into the connection's field Password.",
    "sslkeylogfile": "It would write down the keys that protect the credential.",
    "replication": "A replication connection runs no SQL of Airflow's.",
}

# Texts that people and forms write for "no".
_OFF = (None, "", False, 0, "0", "false", "False", "no")

_HOST_NAME = re.compile(r"(?!.{254})[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


class Connection(Protocol):
    """What is read of a connection: Airflow's have it, and so have those of programs without Airflow."""

    conn_id: Any
    host: Any
    port: Any
    login: Any
    password: Any
    schema: Any
    extra: Any

    @property
    def extra_dejson(self) -> Any:
        """The extra as an object."""


@dataclass(frozen=True)
class Fields:
    """
    A connection, checked. ``settings`` are for libpq, ``place`` names the project and so on.

    ``conn_label`` names the connection in messages. Empty texts, which a form leaves behind, are None.
    """

    conn_label: str
    host: str | None
    port: int | None
    role: str | None
    password: str | None
    database: str | None
    databricks_conn_id: str | None
    place: Mapping[str, str]
    settings: Mapping[str, str | int]


def read_extra(connection: Connection) -> dict[str, Any]:
    """
    Return the extra of a connection without what is empty.

    Airflow reads a broken extra as an empty one, and the login would go elsewhere than was meant.
    """
    extra: Any = None
    if connection.extra and str(connection.extra).strip():
        try:
            extra = json.loads(connection.extra)
        except (ValueError, TypeError, RecursionError):
            extra = connection.extra
        if extra is not None and not isinstance(extra, dict):
            raise LakebaseSettingError(
                f"The extra of connection {shown(connection.conn_id)} is no JSON object, but "
                f"{'no JSON' if isinstance(extra, str) else f'of type {type(extra).__name__}'}. "
                'Write an object, such as {"project": "weather"}.'
            )
        _ = connection.extra_dejson  # by reading it there, Airflow learns what to mask in logs
    return {key: value for key, value in (extra or {}).items() if value not in (None, "")}


def read(connection: Connection, ignored: Collection[str]) -> Fields:
    """
    Return what a connection says.

    :param connection: The Airflow connection.
    :param ignored: Keys of its extra that are for others.
    """
    conn_label = f"Connection {shown(connection.conn_id)}"
    extra = read_extra(connection)
    if extra.get("iam") not in _OFF:
        raise LakebaseSettingError(
            f"{conn_label}: its extra asks for iam, a login by AWS or Azure. Lakebase has none: take iam "
            "out; without a password the login is OAuth, as the Databricks identity."
        )
    fields = {name: getattr(connection, name) for name in ("host", "port", "login", "password", "schema")}
    fields = {name: value for name, value in fields.items() if value not in (None, "")}
    if isinstance(fields.get("host"), str) and pasted.is_pasted(fields["host"]):
        _merge_pasted(fields, extra, fields.pop("host"), "host", conn_label)
    if PASTED in extra:
        _merge_pasted(fields, extra, extra.pop(PASTED), PASTED, conn_label)
    for theirs, ours in _FIELDS.items():
        if theirs in extra:
            _merge(fields, {ours: extra.pop(theirs)}, f"{theirs} in its extra", conn_label)
    place = {name: text(extra.pop(name), name, conn_label) for name in PLACE if name in extra}
    databricks = extra.pop("databricks_conn_id", None)
    settings = {key: value for key, value in extra.items() if key not in ignored}
    return Fields(
        conn_label=conn_label,
        host=_host(fields["host"], conn_label) if "host" in fields else None,
        port=port_number(fields.get("port"), f"{conn_label}: the port"),
        role=text(fields["login"], "login", conn_label) if "login" in fields else None,
        password=clean_password(str(fields["password"]), conn_label) if "password" in fields else None,
        database=text(fields["schema"], "schema", conn_label) if "schema" in fields else None,
        databricks_conn_id=text(databricks, "databricks_conn_id", conn_label) if databricks else None,
        place={name: value for name, value in place.items() if value},
        settings=libpq_settings(settings, f"{conn_label}: its extra", conn_label),
    )


def pasted_connection(string: str, conn_id: str) -> AirflowConnection:
    """
    Return a connection of a connection string.

    :param string: The string; a password in it is the role's own.
    :param conn_id: What to call the connection in messages.
    """
    from airflow.sdk import Connection as AirflowConnection

    found = pasted.parse(string, conn_id)
    return AirflowConnection(
        conn_id=conn_id, conn_type="lakebase", **{**found, "extra": json.dumps(found.get("extra") or {})}
    )


def libpq_settings(settings: Mapping[str, Any], where: str, conn_label: str) -> dict[str, str | int]:
    """
    Check settings for libpq: that it has them, and that they do not lead a login astray.

    :param settings: The settings by name.
    :param where: Where they were found, for messages.
    :param conn_label: The Airflow connection, for messages.
    """
    known = libpq_names()
    checked: dict[str, str | int] = {}
    for name, value in settings.items():
        if name in _REFUSED:
            raise LakebaseSettingError(f"{where} sets {name}, which is not taken there. {_REFUSED[name]}")
        if name not in known:
            close = difflib.get_close_matches(name, [*known - {*_REFUSED}, *PLACE, PASTED], n=1)
            hint = f"Did you mean {close[0]}?" if close else "Take it out."
            raise LakebaseSettingError(f"{where} sets {shown(name)}, which nothing reads. {hint}")
        if isinstance(value, bool):
            value = int(value)
        if not isinstance(value, (str, int)):
            raise LakebaseSettingError(
                f"{where} sets {name} to something of type {type(value).__name__}. Give a text or a number."
            )
        checked[name] = value if isinstance(value, int) else text(value, name, conn_label)
    return checked


@cache
def libpq_names() -> frozenset[str]:
    """Return the names of the settings that libpq has here."""
    from psycopg.pq import Conninfo

    return frozenset(option.keyword.decode() for option in Conninfo.get_defaults())


def port_number(value: Any, what: str) -> int | None:
    """Return a port, None if there is none."""
    if value in (None, ""):
        return None
    number = str(value).strip()
    if number.isascii() and number.isdecimal() and len(number) < 9 and 0 < int(number) < 65536:
        return int(number)
    raise LakebaseSettingError(f"{what} is {shown(value)}. Give a number from 1 to 65535.")


def _merge_pasted(
    fields: dict[str, Any], extra: dict[str, Any], string: Any, where: str, conn_label: str
) -> None:
    """Add what a pasted connection string says to the fields and to the extra."""
    found = pasted.parse(str(string), f"{conn_label}: its {where}")
    if "password" in found:
        raise LakebaseSettingError(
            f"{conn_label}: its {where} holds a password, which everybody who may see connections could "
            "read. Put the password into the field Password, and the string without it here."
        )
    _merge(extra, found.pop("extra"), f"its {where}", conn_label)
    _merge(fields, found, f"its {where}", conn_label)


def _merge(mine: dict[str, Any], more: Mapping[str, Any], where: str, conn_label: str) -> None:
    """Add what is said in a second place; refuse a contradiction."""
    for name, value in more.items():
        if name in mine and str(mine[name]) != str(value):
            raise LakebaseSettingError(
                f"{conn_label} contradicts itself: its {name} is {shown(mine[name])}, but {where} says "
                f"{shown(value)}. Take one of them out."
            )
        mine[name] = value


def text(value: Any, name: str, conn_label: str) -> str:
    """Return a setting as text without white space around it; a control character in it is refused."""
    found = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if found is not None and found.isprintable():
        return found
    raise LakebaseSettingError(
        f"{conn_label}: {name} is {'no text' if found is None else shown(value)}. Give a text without "
        "control characters."
    )


def _host(value: Any, conn_label: str) -> str:
    """Return a Postgres host: a name, an address or a socket, or several with commas between them."""
    host = text(value, "host", conn_label)
    scheme, mark, rest = host.partition("://")
    if mark and scheme.lower() in ("http", "https"):
        host = rest
    if is_host(host := host.rstrip("/") or host):
        return host
    raise LakebaseSettingError(
        f"{conn_label}: its host {shown_host(host)} is no host name. Give the name alone, as in "
        "ep-cool-lake.database.us-west-2.cloud.databricks.com: port, role and password have fields of their "
        "own. A whole connection string begins with postgresql://."
    )


def is_host(host: str) -> bool:
    """Tell whether libpq can take a text for a host, or for several."""
    return host.isprintable() and all(
        part.startswith(("/", "@")) or _HOST_NAME.fullmatch(part) or is_ip(part) for part in host.split(",")
    )
