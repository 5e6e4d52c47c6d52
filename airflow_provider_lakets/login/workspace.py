"""A Databricks workspace: read its resources, and explain its errors."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_lakets.exceptions import (
    LakebaseConnectionError,
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakeTSError,
)
from airflow_provider_lakets.login.answers import Answer
from airflow_provider_lakets.login.rest import Headers, RestError, send

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_lakets.login.who.identity import Identity

MOST_PAGES = 1_000  # the limit for one list; a longer list is an error


class Workspace:
    """
    A workspace, accessed as one identity.

    :param identity: The identity and its workspace.
    """

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def get(self, path: str, **query: str) -> Answer:
        """Return the resource at a path below ``/api/2.0/``."""
        return self._ask("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Send a JSON object to a path below ``/api/2.0/`` and return the answer."""
        return self._ask("POST", path, json=body)

    def pages(self, path: str, key: str | None = None) -> Iterator[Answer]:
        """
        Yield the items of all pages of a list.

        :param key: The key of the items in the response; the default is the last part of the path.
        """
        key = key or path.rpartition("/")[2]
        query: dict[str, str] = {}
        seen: set[str] = set()
        while True:
            page = self.get(path, **query)
            yield from page.items(key)
            if not (token := page.text("next_page_token")):
                return
            if token in seen or len(seen) == MOST_PAGES:
                raise RestError(f"GET {self.identity.host}/api/2.0/{path} is an endless list.", status=200)
            seen.add(token)
            query = {"page_token": token}

    def _ask(self, method: str, path: str, **options: Any) -> Answer:
        url = f"{self.identity.host}/api/2.0/{quote(path)}"
        try:
            return self._ask_once(method, url, options)
        except RestError as err:
            if not (err.is_stale and self.identity.forget()):
                raise
        # The token was revoked before it expired: authenticate again, once.
        return self._ask_once(method, url, options)

    def _ask_once(self, method: str, url: str, options: dict[str, Any]) -> Answer:
        identity = self.identity
        proof = Headers(identity.headers(), identity.name, identity.conn_label)
        secrets = [*proof.secrets, *identity.secrets]
        body = send(identity.session, method, url, secrets=secrets, auth=proof, **options)
        return Answer(f"{method} {url}", body, secrets)

    @contextlib.contextmanager
    def explain_errors(self, what: str, instead: Iterable[Answer] = ()) -> Iterator[None]:
        """
        Convert errors of the workspace into errors that say what to do.

        :param what: The requested resource, for the message.
        :param instead: The existing resources; they are read and listed only after a 404.
        """
        try:
            yield
        except RestError as err:
            raise self._explained(err, what, instead) from err

    def _explained(self, err: RestError, what: str, instead: Iterable[Answer]) -> LakeTSError:
        asked = f"{self.identity.conn_label}: {what}, asked for by the {self.identity.name}"
        if err.is_transient:
            return LakebaseConnectionError(f"{asked}, could not be obtained. {err} Try again later.")
        if err.is_unsendable:
            return LakebaseCredentialError(f"{asked}, could not be requested. {err}")
        if err.status < 400:
            return LakebaseResolutionError(f"{asked}, could not be read. {err} Correct the workspace's host.")
        if err.is_stale:
            return LakebaseCredentialError(
                f"{asked}, was refused. {err} The workspace rejects this identity's token, and a new one: "
                "check the identity's secret or token and that it belongs to this workspace."
            )
        if err.status == 403:
            return LakebaseCredentialError(
                f"{asked}, was refused. {err} Grant the identity access to the project (CAN USE at least)."
            )
        if err.status != 404:
            return LakebaseCredentialError(f"{asked}, was refused. {err}")
        try:
            there = f" There is: {listed(instead)}."
        except RestError:
            there = ""
        return LakebaseResolutionError(
            f"{asked}, does not exist or is hidden from it. {err}{there} Correct the name, or grant the "
            "identity access to the project."
        )


def listed(resources: Iterable[Answer]) -> str:
    """Return the names of resources in one line, each with its type, if known."""
    names = []
    for resource in resources:
        kind = resource.text("status", "endpoint_type")
        names.append(f"{resource.name()} ({kind})" if kind else resource.name())
    return ", ".join(names) or "none"
