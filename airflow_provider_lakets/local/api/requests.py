"""Parse requests; the response to invalid input is an error of the API."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import Request

Answer = dict[str, Any]

MIN_TTL, MAX_TTL = 300, 3600  # lifetime of a database credential in seconds
DEFAULT_PAGE, LARGEST_PAGE = 50, 1000


class ApiError(Exception):
    """
    An error response.

    :param status: HTTP status.
    :param code: Databricks' error code.
    :param message: What was asked and what was found.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def invalid(message: str) -> ApiError:
    """Return the error for an invalid parameter."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", message)


async def body_of(request: Request) -> Answer:
    """Return the body of a request, which must be a JSON object."""
    try:
        body = await request.json()
    except (ValueError, RecursionError) as err:
        raise ApiError(400, "MALFORMED_REQUEST", "The body of the request is not JSON.") from err
    if not isinstance(body, dict):
        raise ApiError(400, "MALFORMED_REQUEST", "The body of the request is not a JSON object.")
    return body


def text(asked: Answer, name: str) -> str:
    """Return a text field; empty if it is missing."""
    value = asked.get(name) or ""
    if not isinstance(value, str):
        raise invalid(f"{name} takes text, not {type(value).__name__}.")
    return value


def texts(asked: Answer, name: str) -> list[str]:
    """Return a field with a list of texts; empty if it is missing."""
    values = asked.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise invalid(f"{name} takes a list of texts.")
    return values


def number(asked: Answer, name: str) -> float | None:
    """Return a field with a number of 0 or more; None if it is missing."""
    value = asked.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise invalid(f"{name} takes a number of 0 or more.")
    return value


def ttl(asked: Answer) -> int:
    """Return the lifetime of a credential in seconds, from ``ttl`` ('600s') or ``expire_time``."""
    try:
        if until := text(asked, "expire_time"):
            instant = datetime.fromisoformat(until.replace("Z", "+00:00"))
            if instant.tzinfo is None:
                instant = instant.replace(tzinfo=timezone.utc)
            seconds = (instant - datetime.now(timezone.utc)).total_seconds()
        else:
            seconds = float((text(asked, "ttl") or f"{MAX_TTL}s").removesuffix("s"))
    except (ValueError, OverflowError) as err:
        raise invalid(f"The lifetime is invalid: {err}.") from err
    if not MIN_TTL - 0.5 <= seconds <= MAX_TTL + 0.5:  # false for NaN too, so it is refused
        raise invalid(f"A credential is valid for {MIN_TTL} to {MAX_TTL} seconds, not {seconds:g}.")
    return round(seconds)


def page_of(request: Request, key: str, answers: Sequence[Answer]) -> Answer:
    """Return the page of a list that a request asks for."""
    size = _position(request, "page_size") or DEFAULT_PAGE
    start = _position(request, "page_token") or 0
    if size > LARGEST_PAGE:
        raise invalid(f"page_size is at most {LARGEST_PAGE}, not {size}.")
    page: Answer = {key: list(answers[start : start + size])}
    if start + size < len(answers):
        page["next_page_token"] = str(start + size)
    return page


def _position(request: Request, name: str) -> int | None:
    value = request.query_params.get(name)
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 10) or (
        name == "page_size" and not int(value)
    ):
        raise invalid(f"{name} is invalid: {value[:40]!r}.")
    return int(value)
