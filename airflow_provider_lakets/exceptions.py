"""What can go wrong, one class for each thing a caller can act on."""

from __future__ import annotations

import re
import textwrap

# Airflow's log view shows about so many characters without scrolling.
WIDTH = 96


class LakeTSError(Exception):
    """Anything this provider raises of its own accord derives from this."""


class LakebaseSettingError(LakeTSError, ValueError):
    """A connection, its extra or the environment says what cannot be, or contradicts itself."""


class LakebaseResolutionError(LakeTSError):
    """The project, its default branch, its read-write endpoint or the database was not found."""


class LakebaseCredentialError(LakeTSError):
    """No Databricks identity was found, or the workspace or Postgres refused it."""


class LakebaseConnectionError(LakeTSError):
    """The workspace or the database did not answer, or cut the session; a later try may succeed."""


class LakeTSNotInstalledError(LakeTSError):
    """The database lacks the LakeTS schema or the function that was called."""


class LakeTSPrivilegeError(LakeTSError):
    """The Postgres role lacks a right that the job needs."""


class LakeTSArgumentError(LakeTSError):
    """LakeTS refused an argument: an unknown table, RollUp or chunk, a chunk already dropped."""


class LakeTSContendedError(LakeTSError):
    """A lock was not granted in time; nothing was changed and the call can be repeated."""


class LakeTSPartialFailureError(LakeTSError):
    """Some of the work failed; all that could be done was done, and the message lists the rest."""


class DBOSSettingError(LakeTSError, ValueError):
    """A DBOS workflow, queue, version or schema is missing or is not the requested one."""


class DBOSWorkflowError(LakeTSError):
    """A DBOS workflow ended without success, or did not start or end in time."""


# No retry cures these.
PERMANENT = (
    DBOSSettingError,
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakebaseSettingError,
    LakeTSArgumentError,
    LakeTSNotInstalledError,
    LakeTSPrivilegeError,
)


def wrapped(message: str) -> str:
    """Return a message with a line for each sentence, and no line longer than a log view shows."""
    return "\n".join(
        piece
        for line in message.splitlines()
        for sentence in ([line] if len(line) <= WIDTH else re.split(r"(?<=[.;?!]) (?=\S)", line))
        for piece in textwrap.wrap(
            sentence, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        or [""]
    )
