"""What every session gets, whatever opens it: a name and limits."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# libpq's arguments where the connection does not say otherwise.
SESSION: Mapping[str, Any] = {
    "connect_timeout": 15,  # seconds for one try; waking a suspended endpoint is a matter of several
    "keepalives_idle": 60,  # seconds; routers on the way drop a connection that is silent for minutes
}

APPLICATION_NAME_LIMIT = 63  # bytes, a limit of Postgres
PART_LIMIT = 20  # each of DAG, task and run keeps at least so many characters of an application name

_DURATION = re.compile(r"\d+\s*(us|ms|s|min|h|d)?")


def application_name(environ: Mapping[str, str] = os.environ) -> str:
    """Return the name of the current task, which identifies its session in pg_stat_activity."""
    parts = [environ.get(f"AIRFLOW_CTX_{part}", "") for part in ("DAG_ID", "TASK_ID", "DAG_RUN_ID")]
    if not any(parts):
        return "airflow-provider-lakets"
    # Postgres prints anything but ASCII as escapes, four bytes for one.
    parts = [part.encode("ascii", "replace").decode() for part in parts]
    while (excess := len("/".join(parts)) - APPLICATION_NAME_LIMIT) > 0:
        longest = max(range(len(parts)), key=lambda part: len(parts[part]))
        parts[longest] = _squeeze(parts[longest], max(len(parts[longest]) - excess, PART_LIMIT))
    return "/".join(parts)


def _squeeze(text: str, size: int) -> str:
    """Shorten a text in its middle: a run id tells its kind in front and its time at the end."""
    head = (size - 1) // 2
    return f"{text[:head]}~{text[len(text) - (size - 1 - head) :]}"


def server_settings(**settings: timedelta | str | None) -> str:
    """
    Return durations as libpq's ``options``: set before the first statement, without a round trip.

    :param settings: Postgres settings by name; None leaves one to the server.
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


# Long enough for any honest piece of work. A forgotten statement ends all the same, and one that
# waits for a lock does not hold up those queueing behind it forever.
DEFAULT_LIMITS = server_settings(
    statement_timeout="12h",
    lock_timeout="10min",
    # A worker that is killed cancels nothing: have the server look whether somebody still listens.
    client_connection_check_interval="10s",
)
