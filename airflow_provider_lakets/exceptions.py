"""Exceptions: one class for each kind of error that a caller can handle differently."""

from __future__ import annotations

import re
import textwrap
from typing import TypeVar

E = TypeVar("E", bound=BaseException)

# Airflow's log view shows about this many characters without scrolling.
WIDTH = 96


class LakeTSError(Exception):
    """Base of all errors that this provider raises."""


class LakebaseSettingError(LakeTSError, ValueError):
    """A setting of a connection, its extra or the environment is invalid or contradicts another."""


class LakebaseResolutionError(LakeTSError):
    """The project, its default branch, its read-write endpoint or the database was not found."""


class LakebaseCredentialError(LakeTSError):
    """No Databricks identity was found, or the workspace or Postgres refused it."""


class LakebaseConnectionError(LakeTSError):
    """The workspace or the database did not answer, or the session was lost; a retry may help."""


class LakeTSNotInstalledError(LakeTSError):
    """The database lacks the LakeTS schema or the function that was called."""


class LakeTSPrivilegeError(LakeTSError):
    """The Postgres role lacks a required right."""


class LakeTSArgumentError(LakeTSError):
    """LakeTS or Postgres refused an argument, such as an unknown table, or a query or a row."""


class LakeTSContendedError(LakeTSError):
    """A lock was not granted in time; nothing was changed, and the call can be repeated."""


class LakeTSPartialFailureError(LakeTSError):
    """Some of the work failed; the rest is done, and the message lists the failures."""


class DBOSSettingError(LakeTSError, ValueError):
    """A DBOS workflow, queue, version or schema is missing or is not the requested one."""


class DBOSWorkflowError(LakeTSError):
    """A DBOS workflow ended without success, or did not start or end in time."""


# Errors that a retry cannot fix.
PERMANENT = (
    DBOSSettingError,
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakebaseSettingError,
    LakeTSArgumentError,
    LakeTSNotInstalledError,
    LakeTSPrivilegeError,
)


def wrapped(kind: type[E], message: str) -> E:
    """
    Return an error whose message has one sentence per line, and no line too long for the log view.

    :param kind: The class of the error. Airflow shows its name before the first line.
    :param message: The message.
    """
    room = " " * len(f"{kind.__name__}: ")
    lines = [
        piece
        for line in f"{room}{message}".splitlines()
        for sentence in ([line] if len(line) <= WIDTH else re.split(r"(?<=[.;?!]) (?=\S)", line))
        for piece in textwrap.wrap(
            sentence, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        or [""]
    ]
    return kind("\n".join(lines).lstrip())
