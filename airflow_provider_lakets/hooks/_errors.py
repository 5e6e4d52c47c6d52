"""Map a Postgres error (SQLSTATE) to an exception class and a message that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.exceptions import (
    LakebaseConnectionError,
    LakeTSArgumentError,
    LakeTSContendedError,
    LakeTSError,
    LakeTSNotInstalledError,
    LakeTSPrivilegeError,
)

if TYPE_CHECKING:
    import psycopg

# Repeating the same statement may succeed, and the failed one changed nothing.
CONTENDED = frozenset({"55P03", "40P01", "40001"})  # lock not available, deadlock, serialization failure

# Connection exceptions (class 08), too many sessions, or a server that is stopping or starting.
LOST = frozenset({"53300", "57P01", "57P02", "57P03", "57P05"})

READ_ONLY = "25006"  # also while a server takes over from another, so a retry may help

# Refusals: the same call will be refused again, for the same arguments, queries and rows. Classes
# of SQLSTATE, and single ones. LakeTS 0.1.x raises all its errors as P0001.
REFUSED = (
    "0A",  # not supported, such as a query that changes rows where one must read
    "21",  # more than one row from a subquery
    "22",  # data: no such date, division by zero, out of range
    "23502",  # null where the table takes none
    "23514",  # a check of the table refuses a row
    "42",  # syntax, names, types; undefined table or function, not of LakeTS: in the query of a RollUp
    "44",  # a check of a view refuses a row
    "54",  # a limit of Postgres, such as the number of columns
    "55000",  # object not in the right state, such as a dropped chunk
    "P0",  # raised by PL/pgSQL
)

INSTALL = (
    "Run `lakets install`, or the lakets_install DAG (LakeTSInstallOperator), with a role that may create "
    "schemas in this database."
)


def is_lost(error: psycopg.Error) -> bool:
    """Return whether the session was lost or refused for a temporary reason."""
    import psycopg

    if not isinstance(error, psycopg.OperationalError):
        return False
    state = error.sqlstate
    return state is None or state.startswith("08") or state in LOST


def is_transient(error: BaseException) -> bool:
    """Return whether repeating the call may succeed."""
    import psycopg

    return isinstance(error, psycopg.Error) and (error.sqlstate in CONTENDED or is_lost(error))


def translate(error: psycopg.Error, *, doing: str, role: str | None, conn_id: str) -> LakeTSError:
    """
    Return the LakeTSError that says what to do about a Postgres error.

    :param error: The error of psycopg.
    :param doing: A description of the call, such as
        ``lakets.tier_chunk('public.metrics_20250101_000000')``.
    :param role: The Postgres role of the session, if known.
    :param conn_id: The id of the Airflow connection.
    """
    where = f"{doing} over connection {conn_id!r}"
    said = _said(error)
    state = error.sqlstate
    if _lacks_lakets(error):
        return LakeTSNotInstalledError(f"{where}: LakeTS is not installed, or too old ({said}). {INSTALL}")
    if state == "42501":
        who = f"role {role!r}" if role else "role of this connection"
        return LakeTSPrivilegeError(
            f"{where}: the Postgres {who} lacks a right ({said}). Grant it, "
            "or, if it must be the owner, make it a member of the owning role: GRANT <owner> TO "
            f'"{role or "<role>"}".'
        )
    if state in CONTENDED:
        return LakeTSContendedError(
            f"{where}: another session holds a lock that it needs ({said}). Nothing was changed; try again."
        )
    if state == READ_ONLY:
        return LakeTSError(f"{where}: {said}. Log in to the read-write endpoint of the branch.")
    if state is not None and state.startswith(REFUSED):
        return LakeTSArgumentError(f"{where}: {said}")
    if is_lost(error):
        return LakebaseConnectionError(f"{where}: the connection was refused or lost ({said})")
    return LakeTSError(f"{where}: {said}")


def _said(error: psycopg.Error) -> str:
    """Return the message, detail and hint of the server in one line."""
    parts = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    return " ".join(part.rstrip(".") + "." for part in parts if part).rstrip(".") or str(error).strip()


def _lacks_lakets(error: psycopg.Error) -> bool:
    """Return whether the missing object belongs to LakeTS; works in any language of the server."""
    message = error.diag.message_primary or ""
    if error.sqlstate == "3F000":
        return "lakets" in message
    if error.sqlstate == "42883":
        return " lakets." in message and not error.diag.context
    return error.sqlstate == "42P01" and '"lakets.' in message
