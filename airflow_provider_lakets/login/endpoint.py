"""Find the endpoint that a connection names, for which credentials are minted."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_provider_lakets.exceptions import LakebaseConnectionError, LakebaseResolutionError
from airflow_provider_lakets.login.address import is_host
from airflow_provider_lakets.login.gate import shown
from airflow_provider_lakets.login.place import HINT, VARIABLE, Place
from airflow_provider_lakets.login.rest import RestError
from airflow_provider_lakets.login.workspace import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.login.answers import Answer
    from airflow_provider_lakets.login.workspace import Workspace

log = logging.getLogger(__name__)

READ_WRITE = "ENDPOINT_TYPE_READ_WRITE"

_PROJECT = re.compile(r"projects/([^/]+)")


@dataclass(frozen=True)
class Endpoint:
    """An endpoint: credentials are minted for ``name``, and logins connect to ``host``."""

    name: str
    host: str
    is_instance: bool = False


class Resolver:
    """
    Find an endpoint with as few requests as possible.

    :param workspace: The workspace, accessed as the identity that will log in.
    :param place: The project, branch and endpoint, or the instance, of the connection.
    :param host: The Postgres host, if the connection gives one. Then only the name of the endpoint
        is looked up.
    """

    def __init__(self, workspace: Workspace, place: Place, host: str | None = None) -> None:
        self._workspace = workspace
        self._asked = workspace.identity.conn_label
        self._place = place
        self._host = host

    def resolve(self) -> Endpoint:
        """Return the endpoint."""
        with self._workspace.explain_errors("the endpoint"):
            place, host = self._place, self._host
            if place.instance:
                return self._provisioned(place.instance)
            if place.project and host and not (place.endpoint and place.branch and not place.is_environments):
                return self._with_host(f"projects/{place.project}", host)
            if place.project:
                return self._in_project(f"projects/{place.project}")
            if host and not (place.branch or place.endpoint):
                return self._search(host)
        raise LakebaseResolutionError(f"{self._asked} names no Lakebase project. {HINT}")

    def _in_project(self, project: str) -> Endpoint:
        place = self._place
        branch = f"{project}/branches/{place.branch}" if place.branch else self._default_branch(project)
        if not place.endpoint:
            return self._read_write(project, branch)
        name = f"{branch}/endpoints/{place.endpoint}"
        if self._host:
            return Endpoint(name, self._host)
        siblings = self._workspace.pages(f"postgres/{branch}/endpoints")
        with self._workspace.explain_errors(f"endpoint {name!r}", siblings):
            return self._reachable(self._workspace.get(f"postgres/{name}"))

    def _with_host(self, project: str, host: str) -> Endpoint:
        """
        Return the endpoint with this host in the project or branch.

        A credential for another endpoint would be rejected at the login, or would be valid for the
        wrong endpoint.
        """
        place = self._place
        asked = f"{project}/branches/{place.branch}" if place.branch else project
        with self._workspace.explain_errors(f"the endpoint of host {host!r}", ()):
            for endpoint in self._endpoints_below(asked):
                is_meant = not place.endpoint or endpoint.name.endswith(f"/{place.endpoint}")
                if _same(endpoint.host, host) and (is_meant or place.is_environments):
                    return endpoint
            if place.is_environments:
                return self._search(host)
        raise LakebaseResolutionError(
            f"{self._asked}: no endpoint of {asked!r} that the {self._workspace.identity.name} sees has the "
            f"host {host!r} of the connection. Remove one of them; or, if the host is another name for an "
            "endpoint, name project, branch and endpoint in the extra."
        )

    def _default_branch(self, project: str) -> str:
        siblings = self._workspace.pages("postgres/projects")
        with self._workspace.explain_errors(f"project {project!r}", siblings):
            if branch := self._workspace.get(f"postgres/{project}").text("status", "default_branch"):
                return branch
            branches = list(self._workspace.pages(f"postgres/{project}/branches"))
        for found in branches:
            if found.flag("status", "default"):
                return found.name()
        raise LakebaseResolutionError(
            f"{self._asked}: project {project!r} has no default branch; it has {listed(branches)}. Name one "
            "as branch in the extra of the connection, or make one the default."
        )

    def _read_write(self, project: str, branch: str) -> Endpoint:
        siblings = self._workspace.pages(f"postgres/{project}/branches")
        with self._workspace.explain_errors(f"branch {branch!r}", siblings):
            endpoints = list(self._workspace.pages(f"postgres/{branch}/endpoints"))
        for endpoint in endpoints:
            if endpoint.text("status", "endpoint_type") == READ_WRITE:
                return self._reachable(endpoint)
        raise LakebaseResolutionError(
            f"{self._asked}: branch {branch!r} has no read-write endpoint; it has {listed(endpoints)}. "
            "Add one to the branch, or name another branch in the extra of the connection."
        )

    def _reachable(self, endpoint: Answer) -> Endpoint:
        """Return an endpoint that has a host; a new endpoint has none until it has started."""
        name = endpoint.name()
        if endpoint.flag("status", "disabled"):
            raise LakebaseResolutionError(f"{self._asked}: endpoint {name!r} is disabled. Enable it first.")
        if host := endpoint.text("status", "hosts", "host"):
            return Endpoint(name, self._checked(host))
        raise LakebaseConnectionError(
            f"{self._asked}: endpoint {name!r} has no host yet; its state is "
            f"{endpoint.text('status', 'current_state') or 'unknown'}. Try again once it has started."
        )

    def _provisioned(self, name: str) -> Endpoint:
        siblings = self._workspace.pages("database/instances", "database_instances")
        with self._workspace.explain_errors(f"instance {name!r}", siblings):
            instance = self._workspace.get(f"database/instances/{name}")
            if host := self._host or instance.text("read_write_dns"):
                return Endpoint(name, self._checked(host), is_instance=True)
        raise LakebaseConnectionError(
            f"{self._asked}: instance {name!r} has no host; its state is "
            f"{instance.text('state') or 'unknown'}. Try again once it has started."
        )

    def _checked(self, host: str) -> str:
        if is_host(host):
            return host
        raise LakebaseResolutionError(
            f"{self._asked}: the workspace returned {shown(host)}, which is not a host name. Correct the "
            "workspace's host."
        )

    def _search(self, host: str) -> Endpoint:
        """Find the endpoint with this host among all that the identity can see."""
        with self._workspace.explain_errors(f"the endpoint of host {host!r}"):
            for endpoint in self._visible_endpoints():
                if _same(endpoint.host, host):
                    log.info(
                        "%s: host %s belongs to %s. To avoid this search, put that name into the extra, as "
                        "endpoint or instance.",
                        self._asked,
                        host,
                        endpoint.name,
                    )
                    return endpoint
        against = f" ({VARIABLE} names another one)" if self._place.is_environments else ""
        raise LakebaseResolutionError(
            f"{self._asked}: the {self._workspace.identity.name} sees no endpoint with host {host!r}"
            f"{against}, and a credential is minted for an endpoint. {HINT} Or set a native password."
        )

    def _visible_endpoints(self) -> Iterator[Endpoint]:
        """Yield each host that the identity can see, with its endpoint or instance."""
        for instance in self._visible("database/instances", "database_instances"):
            for host in (instance.text("read_write_dns"), instance.text("read_only_dns")):
                if host:
                    yield Endpoint(instance.name(), host, is_instance=True)
        for project in self._visible("postgres/projects"):
            yield from self._endpoints_below(project.name())

    def _endpoints_below(self, name: str) -> Iterator[Endpoint]:
        """Yield the hosts of the endpoints of a project or of a branch."""
        branches = (
            [name]
            if "/branches/" in name
            else [branch.name() for branch in self._visible(f"postgres/{name}/branches")]
        )
        for branch in branches:
            for endpoint in self._visible(f"postgres/{branch}/endpoints"):
                for host in endpoint.texts("status", "hosts"):
                    yield Endpoint(endpoint.name(), host)

    def _visible(self, path: str, key: str | None = None) -> list[Answer]:
        """Return a list; an empty list if the identity has no access to it."""
        try:
            return list(self._workspace.pages(path, key))
        except RestError as err:
            if err.status not in (400, 403, 404):
                raise
            log.debug("Left out of the search: %s", err)
            return []


def _same(host: str, other: str) -> bool:
    return host.lower().rstrip(".") == other.lower().rstrip(".")


def project_page(workspace_url: str | None, place: Place) -> str | None:
    """
    Return the URL of the project or instance in the workspace; None if it is not known.

    :param workspace_url: The workspace: scheme, host and port.
    :param place: The project or the instance.
    """
    if not workspace_url:
        return None
    if place.instance:
        return f"{workspace_url}/compute/database-instances/{quote(place.instance, safe='')}"
    if place.project:
        return f"{workspace_url}/lakebase/projects/{quote(place.project, safe='')}"
    return None


def place_of(endpoint: Endpoint) -> Place:
    """Return the project or the instance of an endpoint."""
    if endpoint.is_instance:
        return Place(instance=endpoint.name)
    match = _PROJECT.match(endpoint.name)
    return Place(project=match[1]) if match else Place()
