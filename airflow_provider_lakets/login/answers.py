"""Check the structure of REST responses, because the host may not be a workspace."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.login.gate import SHORTEST_SECRET
from airflow_provider_lakets.login.rest import RestError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class Answer:
    """
    A JSON object of a response, or an object inside it.

    A value that is absent or null is None, as in the Databricks clients. A value with the wrong
    type or with control characters raises an error that names its path.

    A text that contains a secret of the identity raises an error, too, because names are logged.

    :param asked: The request, for messages.
    :param body: The object.
    :param secrets: The secrets of the identity.
    """

    def __init__(self, asked: str, body: Mapping[str, Any], secrets: Collection[str] = ()) -> None:
        self._asked = asked
        self._body = body
        self._secrets = secrets

    def text(self, *path: str) -> str | None:
        """Return the text at a path; None if it is absent or empty."""
        found = self._at(path)
        if found is None or found == "":
            return None
        if any(secret in str(found) for secret in self._secrets if len(secret) >= SHORTEST_SECRET):
            raise self._broken(path, "free of secrets of the identity")
        if isinstance(found, str) and found.isprintable():
            return found
        raise self._broken(path, "a text without control characters")

    def name(self) -> str:
        """Return the name of the resource, which is required."""
        if name := self.text("name"):
            return name
        raise self._broken(("name",), "a text")

    def secret(self, name: str) -> object:
        """Return a secret unchecked; callers check it with ``gate.clean``."""
        return self._body.get(name)

    def flag(self, *path: str) -> bool:
        """Return the boolean at a path; False if it is absent."""
        found = self._at(path)
        if found is None or isinstance(found, bool):
            return bool(found)
        raise self._broken(path, "true or false")

    def seconds(self, name: str, most: float) -> float:
        """Return a duration in seconds, at most ``most``; 0 if it is absent or invalid."""
        found = self._body.get(name)
        try:
            span = float(found) if isinstance(found, (int, float, str)) else 0.0
        except (ValueError, OverflowError):
            span = 0.0
        return min(max(span, 0.0), most) if math.isfinite(span) else 0.0

    def texts(self, *path: str) -> list[str]:
        """Return all texts in the object at a path, whatever their keys are."""
        found = self._at(path)
        if found is None:
            return []
        if not isinstance(found, dict):
            raise self._broken(path, "an object")
        inner = Answer(self._asked, found, self._secrets)
        return [text for key in found if (text := inner.text(key))]

    def items(self, key: str) -> list[Answer]:
        """Return the objects of a list; an empty list if it is absent or null."""
        found = self._body.get(key)
        if found is None:
            return []
        if isinstance(found, list) and all(isinstance(item, dict) for item in found):
            return [Answer(self._asked, item, self._secrets) for item in found]
        raise self._broken((key,), "a list of objects")

    def _at(self, path: tuple[str, ...]) -> Any:
        found: Any = self._body
        for at, step in enumerate(path):
            if found is None:
                return None
            if not isinstance(found, dict):
                raise self._broken(path[:at], "an object")
            found = found.get(step)
        return found

    def _broken(self, path: tuple[str, ...], expected: str) -> RestError:
        return RestError(
            f"{self._asked} was answered, but {'.'.join(path)} in it is not {expected}.", status=200
        )
