"""Read and check a connection: merge its fields, its extra and a pasted connection string."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_lakets.exceptions import LakebaseSettingError
from airflow_provider_lakets.login import pasted
from airflow_provider_lakets.login.address import postgres_host
from airflow_provider_lakets.login.gate import clean_password, shown
from airflow_provider_lakets.login.place import PLACE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PASTED = "connection_string"

# libpq's names for the fields of a connection.
_FIELDS = {"host": "host", "port": "port", "user": "login", "dbname": "schema"}

# Settings of libpq that change where or how to log in, or expose the login; each with a remedy or
# a reason.
_REFUSED = {
    "conninfo": "Write each setting under its own name.",
    "service": "A service file is not read; write its settings into the connection.",
    "servicefile": "A service file is not read; write its settings into the connection.",
    "password": "Put it into the connection's field Password, where Airflow masks it.",
    "passfile": "A password file is not read; put the password into the connection's field Password.",
    "sslkeylogfile": "It would write the keys that protect the credential to a file.",
    "replication": "A replication connection cannot run the SQL of Airflow.",
}

# Connection types with the fields of Postgres. The password of another service must not be sent
# to Postgres.
_TYPES = (None, "lakebase", "postgres", "postgresql")

# Settings of a Databricks identity, which users may put into the Lakebase connection by mistake.
_OF_IDENTITY = re.compile("client_id|client_secret|token|profile|(azure|service_principal|auth).*")

_SECRET = re.compile("pass|secret|token")  # in the name of a setting

# Values that users and forms write for "no".
_OFF = (None, "", False, 0, "0", "false", "False", "no")


class Connection(Protocol):
    """The attributes that are read from a connection, with or without Airflow."""

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
    A checked connection.

    ``settings`` are passed to libpq. ``place`` names the project, branch, endpoint or instance.
    ``conn_label`` names the connection in messages. Empty form fields are None.
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
    Return the extra of a connection without its empty values.

    Airflow reads an invalid extra as empty, so the login could reach the wrong database.
    """
    extra: Any = None
    if connection.extra and str(connection.extra).strip():
        try:
            extra = json.loads(connection.extra)
        except (ValueError, TypeError, RecursionError):
            extra = connection.extra
        if extra is not None and not isinstance(extra, dict):
            raise LakebaseSettingError(
                f"The extra of connection {shown(connection.conn_id)} is not a JSON object, but "
                f"{'text' if isinstance(extra, str) else f'of type {type(extra).__name__}'}. "
                'Write an object, such as {"project": "weather"}.'
            )
        _ = connection.extra_dejson  # reading it registers its secrets for masking in Airflow's logs
    return {key: value for key, value in (extra or {}).items() if value not in (None, "")}


def read(connection: Connection, ignored: Collection[str]) -> Fields:
    """
    Return the checked fields of a connection.

    :param connection: The Airflow connection.
    :param ignored: Keys of its extra that are not for libpq.
    """
    conn_label = f"Connection {shown(connection.conn_id)}"
    _check_type(getattr(connection, "conn_type", None), conn_label)
    extra = read_extra(connection)
    if extra.get("iam") not in _OFF:
        raise LakebaseSettingError(
            f"{conn_label}: its extra asks for iam, a login with AWS or Azure, which Lakebase does not "
            "support. Remove iam; without a password the login is OAuth, as the Databricks identity."
        )
    fields = {name: getattr(connection, name) for name in ("host", "port", "login", "password", "schema")}
    fields = {name: value for name, value in fields.items() if not _is_blank(name, value)}
    if isinstance(fields.get("host"), str) and pasted.is_pasted(fields["host"]):
        _merge_pasted(fields, extra, fields.pop("host"), "host", conn_label)
    if PASTED in extra:
        _merge_pasted(fields, extra, extra.pop(PASTED), PASTED, conn_label)
    for theirs, ours in _FIELDS.items():
        if theirs in extra:
            _merge(fields, {ours: extra.pop(theirs)}, f"{theirs} in its extra", conn_label)
    if "host" in fields:
        fields["host"] = text(fields["host"], "host", conn_label)
    place = {name: text(extra.pop(name), name, conn_label) for name in PLACE if name in extra}
    databricks = extra.pop("databricks_conn_id", None)
    settings = {key: value for key, value in extra.items() if key not in ignored}
    return Fields(
        conn_label=conn_label,
        host=postgres_host(fields["host"], conn_label) if "host" in fields else None,
        port=port_number(fields.get("port"), f"{conn_label}: the port"),
        role=text(fields["login"], "login", conn_label) if "login" in fields else None,
        password=clean_password(str(fields["password"]), conn_label) if "password" in fields else None,
        database=text(fields["schema"], "schema", conn_label) if "schema" in fields else None,
        databricks_conn_id=text(databricks, "databricks_conn_id", conn_label) if databricks else None,
        place={name: value for name, value in place.items() if value},
        settings=libpq_settings(settings, f"{conn_label}: its extra", conn_label),
    )


def libpq_settings(settings: Mapping[str, Any], where: str, conn_label: str) -> dict[str, str | int]:
    """
    Check that libpq knows all settings, and that none of them diverts the login.

    :param settings: The settings by name.
    :param where: The source of the settings, for messages.
    :param conn_label: The Airflow connection, for messages.
    """
    known = libpq_names()
    checked: dict[str, str | int] = {}
    for name, value in settings.items():
        if name in _REFUSED:
            raise LakebaseSettingError(f"{where} sets {name}, which is not allowed there. {_REFUSED[name]}")
        if name not in known and _OF_IDENTITY.fullmatch(name):
            raise LakebaseSettingError(
                f"{where} sets {name}, which belongs to a Databricks identity. Put it into a Databricks "
                "connection, and the id of that connection here, as databricks_conn_id."
            )
        if name not in known:
            close = difflib.get_close_matches(name, [*known - {*_REFUSED}, *PLACE, PASTED], n=1)
            hint = f"Did you mean {close[0]}?" if close else "Remove it."
            raise LakebaseSettingError(f"{where} sets {shown(name)}, which is not a known setting. {hint}")
        if isinstance(value, bool):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, (str, int)):
            raise LakebaseSettingError(
                f"{where} sets {name} to a value of type {type(value).__name__}. Give a text or a whole "
                "number."
            )
        checked[name] = value if isinstance(value, int) else text(value, name, conn_label)
    return checked


@cache
def libpq_names() -> frozenset[str]:
    """Return the names of the settings of the installed libpq."""
    from psycopg.pq import Conninfo

    return frozenset(option.keyword.decode() for option in Conninfo.get_defaults())


def port_number(value: Any, what: str) -> int | None:
    """Return a port; None if it is not set."""
    if value in (None, ""):
        return None
    number = str(value).strip()
    if number.isascii() and number.isdecimal() and len(number) < 9 and 0 < int(number) < 65536:
        return int(number)
    raise LakebaseSettingError(f"{what} is {shown(value)}. Give a number from 1 to 65535.")


def _merge_pasted(
    fields: dict[str, Any], extra: dict[str, Any], string: Any, where: str, conn_label: str
) -> None:
    """Merge a pasted connection string into the fields and the extra."""
    found = pasted.parse(str(string), f"{conn_label}: its {where}")
    if "password" in found:
        raise LakebaseSettingError(
            f"{conn_label}: its {where} contains a password, which everybody who may see connections could "
            "read. Put the password into the field Password, and the string without it here."
        )
    _merge(extra, found.pop("extra"), f"its {where}", conn_label)
    _merge(fields, found, f"its {where}", conn_label)


def _merge(mine: dict[str, Any], more: Mapping[str, Any], where: str, conn_label: str) -> None:
    """Add settings from a second source; reject a contradiction."""
    for name, value in more.items():
        if name in mine and str(mine[name]) != str(value):
            raise LakebaseSettingError(
                f"{conn_label} contradicts itself: its {name} is {_shown(name, mine[name])}, but {where} "
                f"says {_shown(name, value)}. Remove one of them."
            )
        mine[name] = value


def text(value: Any, name: str, conn_label: str) -> str:
    """Return a setting as text without surrounding white space; reject control characters."""
    found = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if found is not None and found.isprintable():
        return found
    raise LakebaseSettingError(
        f"{conn_label}: {name} is {'not text' if found is None else _shown(name, value)}. Write text "
        "without control characters."
    )


def _check_type(conn_type: str | None, conn_label: str) -> None:
    """Reject connections of other services, and values that are not a connection string."""
    if conn_type == "":
        raise LakebaseSettingError(
            f"{conn_label} has no type: what is stored for it is not a connection string. Write one that "
            "begins with lakebase://, or JSON."
        )
    if conn_type not in _TYPES:
        raise LakebaseSettingError(
            f"{conn_label} is of type {shown(conn_type)}, so its host and password are not those of a "
            "Lakebase. Name a connection of type lakebase."
        )


def _is_blank(name: str, value: Any) -> bool:
    """Return whether a field is empty; a password may consist of spaces."""
    return value in (None, "") or (name != "password" and isinstance(value, str) and not value.strip())


def _shown(name: str, value: Any) -> str:
    """Return the value of a setting for a message; a secret is masked."""
    return "'***'" if _SECRET.search(name) else shown(value)
