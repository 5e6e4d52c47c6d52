"""Requests to a workspace: patient with one that is overloaded, discreet about what they carry."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import tenacity
from requests.auth import AuthBase

from airflow_provider_lakets.exceptions import LakebaseCredentialError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

log = logging.getLogger(__name__)

TIMEOUT = (5, 30)  # seconds to connect, and to wait for an answer
TRIES = 5
LONGEST_WAIT = 30.0  # seconds; a Retry-After beyond it is cut to it

_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=10)


class RestError(Exception):
    """
    The workspace answered with an error, or did not answer.

    :param message: What was asked and what came back, free of secrets.
    :param status: HTTP status; 0 when there was no answer at all.
    :param retry_after: Seconds after which the workspace asks to be asked again.
    """

    def __init__(self, message: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.status in (0, 429) or self.status >= 500


class Headers(AuthBase):
    """Prove the identity by headers; as an ``auth`` they win over an entry for the host in ~/.netrc."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the headers to a request."""
        request.headers.update(self.headers)
        return request


def is_local(host: str) -> bool:
    """Tell whether what is sent to a host stays on this machine: a Unix socket, or the loopback interface."""
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def workspace_url(host: str, asker: str) -> str:
    """
    Return the address of a workspace as scheme, host and port.

    :param host: The host as users write it: with or without scheme, with or without a trailing slash.
    :param asker: The Airflow connection, for the message.
    :raises LakebaseCredentialError: if it would send secrets over a network in clear text.
    """
    parts = urlsplit(host if "://" in host else f"https://{host}")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local(parts.hostname or "")):
        raise LakebaseCredentialError(
            f"{asker}: the Databricks workspace {host!r} is no https:// address, so the identity's secret "
            "would travel in clear text. Use https://; http:// is for a workspace on this machine only."
        )
    return f"{parts.scheme}://{parts.netloc}"


def blot(text: str, secrets: Collection[str]) -> str:
    """Take secrets out of a text of unknown making: those given, and whatever looks like a token."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    text = re.sub(
        r"(?i)((?:token|secret|password|assertion)['\"]?\s*[:=]\s*['\"]?)[^\s'\",}]+", r"\1***", text
    )
    return re.sub(r"\beyJ[\w.-]+|\bdapi\w+|\bdose\w+", "***", text)


def send(
    session: requests.Session, method: str, url: str, *, secrets: Collection[str] = (), **options: Any
) -> dict[str, Any]:
    """
    Make one request, again when that may help, and return the JSON object it was answered with.

    :param secrets: Texts to blot out should the answer repeat them.
    :param options: What :meth:`requests.Session.request` takes.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda err: isinstance(err, RestError) and err.is_transient),
        stop=tenacity.stop_after_attempt(TRIES),
        wait=_wait,
        before_sleep=_say_wait,
        reraise=True,
    )
    return retrying(_send_once, session, method, url, secrets, options)


def _wait(state: tenacity.RetryCallState) -> float:
    """Wait as long as the workspace asks for, within reason, else with growing and random pauses."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, RestError) else None
    return _backoff(state) if asked is None else min(asked, LONGEST_WAIT)


def _say_wait(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("%s Asking again in %.1f s.", error, state.next_action.sleep if state.next_action else 0)


def _send_once(
    session: requests.Session, method: str, url: str, secrets: Collection[str], options: dict[str, Any]
) -> dict[str, Any]:
    asked = f"{method} {url}"
    try:
        # A redirect leads to a login page for people; following it would send the request's body along.
        answer = session.request(method, url, timeout=TIMEOUT, allow_redirects=False, **options)
    except requests.RequestException as err:
        # Its own text may name a proxy with its password; the kind of failure is all there is to know.
        failure = RestError(f"{asked} was not answered ({type(err).__name__}).")
    else:
        with contextlib.suppress(ValueError):
            if answer.ok and isinstance(body := answer.json(), dict):
                return body
        failure = RestError(
            f"{asked} was answered {answer.status_code}{_reason(answer, secrets)}.",
            status=answer.status_code,
            retry_after=_retry_after(answer),
        )
    raise failure


def _reason(answer: requests.Response, secrets: Collection[str]) -> str:
    """Return what the answer gives as its reason, in Databricks' form or OAuth's, without the secrets."""
    try:
        body = answer.json()
        parts = [
            body.get("error_code") or body.get("error"),
            body.get("message") or body.get("error_description"),
        ]
    except (ValueError, AttributeError):
        parts = ["which is not the JSON of a Databricks workspace" if answer.status_code < 400 else None]
    reason = "".join(f", {str(part).rstrip('.')}" for part in parts if part)
    return blot(reason, secrets)[:500]


def _retry_after(answer: requests.Response) -> float | None:
    """Return the seconds of a Retry-After header; its rarer form, a date, counts as absent."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
