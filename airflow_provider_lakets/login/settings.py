"""The name and the limits of every session."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Default arguments for libpq; the connection can override them.
SESSION: Mapping[str, Any] = {
    "connect_timeout": 15,  # seconds for each try; resuming a suspended endpoint takes several
    # A connection whose network is gone is lost after 3 minutes without an answer.
    "keepalives_idle": 60,  # seconds; routers drop a connection that is idle for minutes
    "keepalives_interval": 20,  # seconds
    "keepalives_count": 6,
    "client_encoding": "UTF8",  # PGCLIENTENCODING may lack letters of a name
}

# Those of calls of LakeTS. What was sent and is not acknowledged would be repeated for 15 minutes.
# Not for other sessions: it also ends a COPY that the server does not read for so long.
CALLS: Mapping[str, Any] = {**SESSION, "tcp_user_timeout": 180_000}  # milliseconds

APPLICATION_NAME_LIMIT = 63  # bytes, a limit of Postgres
PART_LIMIT = 20  # each of DAG, task and run keeps at least this many characters

_DURATION = re.compile(r"\d+\s*(us|ms|s|min|h|d)?")


def application_name(environ: Mapping[str, str] = os.environ) -> str:
    """Return the name of the current task, which identifies its session in pg_stat_activity."""
    parts = [environ.get(f"AIRFLOW_CTX_{part}", "") for part in ("DAG_ID", "TASK_ID", "DAG_RUN_ID")]
    if not any(parts):
        return "airflow-provider-lakets"
    # Postgres replaces each byte that is not ASCII by an escape of four bytes.
    parts = [part.encode("ascii", "replace").decode() for part in parts]
    while (excess := len("/".join(parts)) - APPLICATION_NAME_LIMIT) > 0:
        longest = max(range(len(parts)), key=lambda part: len(parts[part]))
        parts[longest] = _squeeze(parts[longest], max(len(parts[longest]) - excess, PART_LIMIT))
    return "/".join(parts)


def _squeeze(text: str, size: int) -> str:
    """Shorten a text in the middle; a run id begins with its type and ends with its time."""
    head = (size - 1) // 2
    return f"{text[:head]}~{text[len(text) - (size - 1 - head) :]}"


def server_settings(**settings: timedelta | str | None) -> str:
    """
    Return durations as libpq's ``options``, which set them at the login without a round trip.

    :param settings: Postgres settings by name; None keeps the default of the server.
    """
    return " ".join(
        f"-c {name}={_duration(name, value)}" for name, value in settings.items() if value is not None
    )


def _duration(name: str, value: timedelta | str) -> str:
    if isinstance(value, timedelta):
        return f"{value // timedelta(milliseconds=1)}ms"
    if not _DURATION.fullmatch(value):
        raise ValueError(
            f"{name} is {value!r}; give a timedelta, or Postgres' form such as '30s', '15min' or '0'."
        )
    return value.replace(" ", "")


# Long enough for any real job. The limits end forgotten statements, and statements that wait for
# a lock and block the sessions queued behind them.
DEFAULT_LIMITS = server_settings(
    statement_timeout="12h",
    lock_timeout="10min",
    # A killed worker cancels nothing, so the server checks whether the client is still connected.
    client_connection_check_interval="10s",
)

# How the statements of LakeTS are run and answered, whatever the role or the database sets: psycopg
# reads times in one DateStyle only, and the jobs need this isolation level.
PLAIN = (
    "-c datestyle=ISO -c intervalstyle=postgres -c client_encoding=UTF8"
    r" -c default_transaction_isolation=read\ committed"
)
