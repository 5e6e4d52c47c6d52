"""
Name the sessions of a DBOS program after the version of the program.

DBOS lists the versions that were ever started, but not those that are running. Airflow can see
these only by their sessions on the server.
"""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

# The name of the sessions of an engine that DBOS creates itself.
APPLICATION_NAME = "dbos_transact"
PREFIX = f"{APPLICATION_NAME}/"

# Postgres cuts a name at 63 bytes, and replaces what is not ASCII.
_LONGEST_VERSION = 63 - len(PREFIX)


def session_name(version: str) -> str:
    """Return the session name for a version; a version that does not fit a name is hashed."""
    fits = version.isascii() and version.isprintable() and len(version) <= _LONGEST_VERSION
    return PREFIX + (version if fits else hashlib.sha256(version.encode()).hexdigest()[:32])


def name_sessions(engine: Engine) -> None:
    """Name the sessions of an engine after the version of the DBOS program in this process."""
    from sqlalchemy import event

    event.listen(engine, "checkout", _name_session)


def _name_session(connection: Any, *_: Any) -> None:
    version = _running_version()
    if not version:
        return
    now = connection.info.parameter_status("application_name") or ""
    wanted = session_name(version)
    # A name that the author chose is kept.
    if now != wanted and (now == APPLICATION_NAME or now.startswith(PREFIX)):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.set_config('application_name', %s, false)", [wanted])
        if not connection.autocommit:
            connection.commit()


def _running_version() -> str | None:
    """Return the version of the DBOS program of this process, without importing DBOS."""
    program = getattr(sys.modules.get("dbos"), "DBOS", None)
    version = getattr(program, "application_version", None)
    return version if isinstance(version, str) else None
