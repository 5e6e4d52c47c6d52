"""REST requests to a workspace: retry temporary failures, and keep secrets out of errors."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import requests
import tenacity
from requests.auth import AuthBase

from airflow_provider_lakets.login.gate import clean, said

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

log = logging.getLogger(__name__)

TIMEOUT = (5, 30)  # seconds to connect, and to wait for an answer
TRIES = 5
LONGEST_WAIT = 30.0  # seconds; a longer Retry-After is reduced to this
LONGEST_ANSWER = 16 * 1024 * 1024  # bytes; a page of a list has a few kilobytes

_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=10)

# Databricks answers 403 both for some expired tokens and for a missing privilege.
_STALE = re.compile(r"(?i)invalid access token|token (is |has |was )?(expir|invalid|revoked)|expired token")


class RestError(Exception):
    """
    The workspace answered with an error, or did not answer.

    :param message: The request and the response, without secrets.
    :param status: The HTTP status; 0 if there was no response.
    :param reason: The reason given in the response.
    :param retry_after: The seconds to wait that the workspace requested.
    :param is_unsendable: Whether the request could not be sent.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after: float | None = None,
        is_unsendable: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.is_unsendable = is_unsendable
        self._reason = reason

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return not self.is_unsendable and (self.status in (0, 429) or self.status >= 500)

    @property
    def is_stale(self) -> bool:
        """Whether the token was rejected, rather than the identity."""
        return self.status == 401 or (self.status == 403 and bool(_STALE.search(self._reason)))


class Headers(AuthBase):
    """
    Authenticate by headers; as an ``auth`` they override an entry for the host in ~/.netrc.

    :param headers: The headers; their values are checked here by ``gate.clean``.
    :param name: The identity, for messages.
    :param conn_label: The Airflow connection, for messages.
    """

    def __init__(self, headers: Mapping[str, str], name: str, conn_label: str) -> None:
        what = f"the token of the {name}"
        self.headers: dict[str, str] = {}
        for header, value in headers.items():
            scheme, space, token = str(value).partition(" ")
            is_schemed = header.lower() == "authorization" and space
            self.headers[header] = (
                f"{scheme} {clean(token, what, conn_label)}" if is_schemed else clean(value, what, conn_label)
            )

    @property
    def secrets(self) -> list[str]:
        """The values that messages must not contain."""
        return [value.partition(" ")[2] or value for value in self.headers.values()]

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the headers to a request."""
        request.headers.update(self.headers)
        return request


def send(
    session: requests.Session, method: str, url: str, *, secrets: Collection[str] = (), **options: Any
) -> dict[str, Any]:
    """
    Send a request, retry temporary failures, and return the JSON object of the response.

    :param secrets: Texts to redact if the response contains them.
    :param options: Arguments of :meth:`requests.Session.request`.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda err: isinstance(err, RestError) and err.is_transient),
        stop=tenacity.stop_after_attempt(TRIES),
        wait=_wait,
        before_sleep=_log_wait,
        reraise=True,
    )
    return retrying(_send_once, session, method, url, secrets, options)


def _wait(state: tenacity.RetryCallState) -> float:
    """Return the pause that the workspace requests, limited, or a growing random one otherwise."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, RestError) else None
    return _backoff(state) if asked is None else min(asked, LONGEST_WAIT)


def _log_wait(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("%s Trying again in %.1f s.", error, state.next_action.sleep if state.next_action else 0)


def _send_once(
    session: requests.Session, method: str, url: str, secrets: Collection[str], options: dict[str, Any]
) -> dict[str, Any]:
    asked = f"{method} {url}"
    try:
        # A redirect leads to an interactive login page; following it would send the body there.
        with session.request(
            method, url, timeout=TIMEOUT, allow_redirects=False, stream=True, **options
        ) as answer:
            body = _read(answer)
    except Exception as err:
        # Any exception, because libraries raise many kinds. Their messages may contain the
        # password of a proxy or the token, so only the kind of the failure is reported.
        failure = _not_answered(asked, err)
    else:
        if answer.ok and isinstance(body, dict):
            return body
        reason = _reason(answer.status_code, body, secrets)
        failure = RestError(
            f"{asked} was answered {answer.status_code}{f', {reason}' if reason else ''}.",
            status=answer.status_code,
            reason=reason,
            retry_after=_retry_after(answer),
        )
    raise failure


def _read(answer: requests.Response) -> Any:
    """Return the JSON of a response; None if it is not JSON or too long."""
    content = b""
    for piece in answer.iter_content(65536):
        content += piece
        if len(content) > LONGEST_ANSWER:
            return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _not_answered(asked: str, err: Exception) -> RestError:
    """Return the error for a request without a response: a temporary one, or an unsendable one."""
    kind = type(err).__name__
    if isinstance(err, requests.exceptions.SSLError):
        return RestError(
            f"{asked} was not sent: the workspace's certificate is not trusted here ({kind}). Correct the "
            "host; for an authority of your own set REQUESTS_CA_BUNDLE to its file.",
            is_unsendable=True,
        )
    passing = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    if isinstance(err, passing) and not isinstance(err, requests.exceptions.InvalidURL):
        return RestError(
            f"{asked} was not answered ({kind}). Check that the workspace's host is right and can be reached."
        )
    if isinstance(err, OSError) and not isinstance(err, requests.RequestException):
        return RestError(
            f"{asked} was not sent: a file of certificates cannot be read ({kind}). Set REQUESTS_CA_BUNDLE "
            "and CURL_CA_BUNDLE to files that exist, or unset them.",
            is_unsendable=True,
        )
    return RestError(f"{asked} could not be sent ({kind}). Correct host and proxies.", is_unsendable=True)


def _reason(status: int, body: Any, secrets: Collection[str]) -> str:
    """Return the reason in a response of Databricks or OAuth, without secrets."""
    if not isinstance(body, dict):
        return "which is not the JSON of a Databricks workspace" if status < 400 else ""
    parts = [
        body.get("error_code") or body.get("error"),
        body.get("message") or body.get("error_description"),
    ]
    return said(", ".join(str(part).rstrip(".") for part in parts if part), secrets)


def _retry_after(answer: requests.Response) -> float | None:
    """Return the seconds of a Retry-After header; a date, its rarer form, is ignored."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdecimal() else None
