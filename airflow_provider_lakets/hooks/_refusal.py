"""What a login that failed means: worth another try, or refused for a reason that somebody must mend."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg
import tenacity

from airflow_provider_lakets.exceptions import (
    LakebaseConnectionError,
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakeTSError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


class EndpointAsleepError(LakebaseConnectionError):
    """The endpoint did not take the login: it may be suspended, and waking up because of it."""


def _say_wait(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0
    log.warning("%s Trying again in %.1f s (try %d).", error, pause, state.attempt_number + 1)


# About twelve seconds of pauses in all, on top of what the tries themselves take.
RETRY_POLICY: dict[str, Any] = {
    "retry": tenacity.retry_if_exception_type(EndpointAsleepError),
    "stop": tenacity.stop_after_attempt(6),
    "wait": tenacity.wait_exponential(multiplier=0.5, max=5) + tenacity.wait_random(0, 0.5),
    "before_sleep": _say_wait,
    "reraise": True,
}

# libpq hands out no SQLSTATE for a refused login, so its words must do. A server that says FATAL has
# looked at the request and decided. These are the decisions that pass by themselves:
_PASSING = (
    "starting up",
    "shutting down",
    "not yet accepting",
    "in recovery",
    "too many",
    "connection slots",
    "terminating connection",
)
# ... and here no server has decided anything, yet another try would end the same way.
_HOPELESS = ("invalid ", "certificate", "does not support SSL", "no password supplied", "channel binding")


def explain(err: psycopg.Error, login: Mapping[str, Any], *, conn_id: str, means: str) -> LakeTSError:
    """
    Return the error to raise in place of psycopg's, and not from it: that carries the password it tried.

    :param err: What psycopg raised.
    :param login: libpq's arguments for the login.
    :param conn_id: The Airflow connection.
    :param means: By what the role proved itself, in words.
    """
    # libpq indents its guesses ("Is the server running on that host?"): they are left out.
    lines = [line for line in str(err).removeprefix("connection failed: ").splitlines() if line[:1] != "\t"]
    said = " ".join(" ".join(lines).split()).rstrip(".")
    asked = (
        f"Connection {conn_id!r}: the login to {login['host']} as role {login['user']!r}, database "
        f"{login['dbname']!r}, with {means}"
    )
    if not _is_final(err, said):
        return EndpointAsleepError(f"{asked}, got no answer: {said}.")
    kind, advice = _advice(said, means)
    return kind(f"{asked}, was refused: {said}. {advice}")


def _is_final(err: psycopg.Error, said: str) -> bool:
    if not isinstance(err, psycopg.OperationalError):
        return True  # psycopg itself did not take the arguments
    if "FATAL:" in said:
        return not any(words in said for words in _PASSING)
    return any(words in said for words in _HOPELESS)


def _advice(said: str, means: str) -> tuple[type[LakeTSError], str]:
    """Return what kind of error it is, and what to do about it."""
    if "database" in said and "does not exist" in said:
        return LakebaseResolutionError, "Correct the schema of the connection, or create the database."
    if "role" in said and "does not exist" in said:
        return (
            LakebaseCredentialError,
            "Create the role in Postgres, or name another by login or LAKETS_PG_ROLE.",
        )
    if "SSL" in said or "certificate" in said:
        return LakebaseCredentialError, "Correct sslmode and sslrootcert in the extra of the connection."
    if "password" in said and "native" in means:
        return LakebaseCredentialError, (
            "Correct login and password, and see that the project allows native Postgres passwords; or take "
            "the password out to log in by OAuth."
        )
    if "password" in said:
        return LakebaseCredentialError, (
            "See that the role belongs to this identity in Postgres, and that the host is this endpoint's."
        )
    return LakebaseCredentialError, "Correct the connection."
