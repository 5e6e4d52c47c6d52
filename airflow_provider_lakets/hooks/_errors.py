"""Map a Postgres error (SQLSTATE) to the exception class that says what a caller can do."""

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

# A later try of the very same statement may well succeed: nothing was changed by the first.
CONTENDED = frozenset({"55P03", "40P01", "40001"})  # lock not available, deadlock, serialization failure

# Connection exceptions (class 08), no room for one more session, server going down or coming up.
LOST = frozenset({"53300", "57P01", "57P02", "57P03", "57P05"})

# Refusals: the same call will be refused again. LakeTS 0.1.x raises all of its own as P0001.
REFUSED = frozenset(
    {
        "22003",  # number out of range
        "22007",  # no such date or interval
        "22008",  # time out of range
        "22023",  # invalid parameter value
        "0A000",  # not supported, such as a query that changes rows where one must read
        "22P02",  # text that is not of the type
        "42601",  # syntax error: a query of the user's
        "42602",  # invalid name
        "42703",  # undefined column
        "42704",  # undefined object
        "42710",  # duplicate object
        "42804",  # wrong type
        "42883",  # undefined function, other than ours: a RollUp's query
        "42P01",  # undefined table, other than ours
        "42P07",  # duplicate table
        "55000",  # object not in the right state, such as a dropped chunk
        "P0001",  # raise exception
    }
)

INSTALL = (
    "Run `lakets install`, or the lakets_install DAG (LakeTSInstallOperator), with a role that may create "
    "schemas in this database."
)


def is_lost(error: psycopg.Error) -> bool:
    """Return whether the session is lost, or was refused, for a reason that may pass."""
    import psycopg

    if not isinstance(error, psycopg.OperationalError):
        return False
    state = error.sqlstate
    return state is None or state.startswith("08") or state in LOST


def is_transient(error: BaseException) -> bool:
    """Return whether the same call may succeed when it is made again."""
    import psycopg

    return isinstance(error, psycopg.Error) and (error.sqlstate in CONTENDED or is_lost(error))


def translate(error: psycopg.Error, *, doing: str, role: str | None, conn_id: str) -> LakeTSError:
    """
    Return the exception of ours that says what to do about a Postgres error.

    :param error: What psycopg raised.
    :param doing: The call in words, such as
        ``lakets.tier_chunk('public.metrics_20250101_000000')``.
    :param role: The Postgres role of the session, as far as it is known.
    :param conn_id: The Airflow connection that was used.
    """
    where = f"{doing} over connection {conn_id!r}"
    said = _said(error)
    state = error.sqlstate
    if _lacks_lakets(error):
        return LakeTSNotInstalledError(f"{where}: LakeTS is not there, or too old ({said}). {INSTALL}")
    if state == "42501":
        who = f"role {role!r}" if role else "role of this connection"
        return LakeTSPrivilegeError(
            f"{where}: the Postgres {who} lacks a right ({said}). Grant it, "
            "or, where it must be the owner, make it a member of the owning role: GRANT <owner> TO "
            f'"{role or "<role>"}".'
        )
    if state in CONTENDED:
        return LakeTSContendedError(
            f"{where}: another session holds what it needs ({said}). Nothing was changed; try again."
        )
    if state in REFUSED:
        return LakeTSArgumentError(f"{where}: {said}")
    if is_lost(error):
        return LakebaseConnectionError(f"{where}: the connection was refused or lost ({said})")
    return LakeTSError(f"{where}: {said}")


def _said(error: psycopg.Error) -> str:
    """Return the server's message, detail and hint in one line."""
    parts = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    return " ".join(part.rstrip(".") + "." for part in parts if part).rstrip(".") or str(error).strip()


def _lacks_lakets(error: psycopg.Error) -> bool:
    """Return whether LakeTS itself is missing, and not a thing of the user's, in any language."""
    message = error.diag.message_primary or ""
    if error.sqlstate == "3F000":
        return "lakets" in message
    if error.sqlstate == "42883":
        return " lakets." in message and not error.diag.context
    return error.sqlstate == "42P01" and '"lakets.' in message
