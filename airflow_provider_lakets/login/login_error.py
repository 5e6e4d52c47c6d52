"""Classify failed logins: retry, or report what an administrator must correct."""

from __future__ import annotations

import logging
import re
from typing import Any

import psycopg
import tenacity

from airflow_provider_lakets.exceptions import (
    LakebaseConnectionError,
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakebaseSettingError,
    LakeTSError,
)
from airflow_provider_lakets.login.gate import said

log = logging.getLogger(__name__)


class EndpointAsleepError(LakebaseConnectionError):
    """The endpoint did not accept the login; it may be suspended and now be resuming."""


def _log_wait(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0
    log.warning("%s Trying again in %.1f s (try %d).", error, pause, state.attempt_number + 1)


# The pauses total about 12 s, in addition to the tries.
RETRY_POLICY: dict[str, Any] = {
    "retry": tenacity.retry_if_exception_type(EndpointAsleepError),
    "stop": tenacity.stop_after_attempt(6),
    "wait": tenacity.wait_exponential(multiplier=0.5, max=5) + tenacity.wait_random(0, 0.5),
    "before_sleep": _log_wait,
    "reraise": True,
}

# libpq reports no SQLSTATE for a failed login, so its message is matched. FATAL comes from a
# server that processed the request. These FATAL errors are temporary:
_TEMPORARY = re.compile(
    "starting up|shutting down|not yet accepting|in recovery|too many|connection slots|terminating connection"
)
# These errors do not come from the server, but a retry would fail in the same way.
_PERMANENT = re.compile(
    "invalid |sslmode|certificate|does not support SSL|no password supplied|channel binding"
)


def login_error(err: Exception, asked: str, *, password: str, is_native: bool) -> LakeTSError:
    """
    Return the error to raise in place of psycopg's error, which contains the password.

    :param err: The error of psycopg.
    :param asked: A description of the login, for the message.
    :param password: The password of the login; a server may repeat it in its message.
    :param is_native: Whether it is a native Postgres password rather than a minted credential.
    """
    # libpq indents its hints ("Is the server running on that host?"); they are omitted.
    # With several addresses psycopg appends a list of all failures.
    text = str(err).removeprefix("connection failed: ").partition("\nMultiple connection attempts")[0]
    lines = [line.rstrip(".") for line in text.splitlines() if line[:1] != "\t"]
    words = said(". ".join(lines), [password]).rstrip(".")
    if not _is_final(err, words):
        return EndpointAsleepError(f"{asked}, got no answer: {words}. {_advice_on_silence(words)}")
    kind: type[LakeTSError] = LakebaseCredentialError
    if re.search('database ".*" does not exist', words):
        kind, advice = (
            LakebaseResolutionError,
            "Correct the schema of the connection, or create the database.",
        )
    elif re.search('role ".*" does not exist', words):
        advice = "Create the role in Postgres, or name another by login or LAKETS_PG_ROLE."
    elif "unsupported startup parameter" in words:
        kind, advice = (
            LakebaseSettingError,
            "The host is a connection pooler (PgBouncer), which does not take the settings of a session. Use "
            "the direct host of the endpoint, without -pooler.",
        )
    elif "root certificate file" in words:
        words = words.partition(". Either provide")[0]  # libpq advises to turn the check off
        advice = (
            "Correct sslrootcert in the extra of the connection, or PGSSLROOTCERT in the environment; "
            "without both, the authorities of the operating system are used."
        )
    elif re.search("SSL|sslmode|certificate", words):
        advice = (
            "Without sslmode the certificate of the server must be valid for this host (verify-full). "
            "Correct the host, or name the file of the authority that signed its certificate as sslrootcert "
            "in the extra of the connection."
        )
    elif "password" not in words:
        advice = "Correct the connection."
    elif is_native:
        advice = (
            "Correct login and password, and check that the project allows native Postgres passwords; or "
            "remove the password to log in with OAuth."
        )
    else:
        advice = "Check that the role belongs to this identity, and the host to this endpoint."
    return kind(f"{asked}, was refused: {words}. {advice}")


def _advice_on_silence(words: str) -> str:
    if "FATAL:" in words:
        return "Try again later."
    if re.search("resolve host|translate host", words):
        return "Check that the host is spelt right and that this machine can look it up."
    return "Check that host and port are right and that the endpoint is up."


def _is_final(err: Exception, words: str) -> bool:
    if not isinstance(err, psycopg.OperationalError):
        return True  # psycopg itself rejected the arguments
    if "FATAL:" in words:
        return _TEMPORARY.search(words) is None
    return _PERMANENT.search(words) is not None
