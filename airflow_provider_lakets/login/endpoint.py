"""Where is it: from what a connection names to the endpoint that credentials are minted for."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow_provider_lakets.exceptions import LakebaseConnectionError, LakebaseResolutionError
from airflow_provider_lakets.login.rest import RestError
from airflow_provider_lakets.login.workspace import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_lakets.login.workspace import Workspace

log = logging.getLogger(__name__)

READ_WRITE = "ENDPOINT_TYPE_READ_WRITE"

_PATH = re.compile(
    r"projects/(?P<project>[^/]+)(?:/branches/(?P<branch>[^/]+)(?:/endpoints/(?P<endpoint>[^/]+))?)?"
)
_PROJECT = re.compile(r"/?projects/([^/]+)")
_HINT = (
    "Name a project, an endpoint (projects/<project>/branches/<branch>/endpoints/<endpoint>) or an instance "
    "in the extra of the connection, or set LAKETS_LAKEBASE_ENDPOINT."
)


@dataclass(frozen=True)
class Endpoint:
    """A place to log in to: ``name`` is what credentials are minted for, ``host`` is what to connect to."""

    name: str
    host: str
    is_instance: bool = False


class Resolver:
    """
    Find an endpoint, looking up no more than it must.

    :param workspace: The workspace, asked as the identity that will log in.
    :param host: Postgres host, when the connection gives one: then only the endpoint's name is looked for.
    :param project: Project id; like the next two it may be a resource name that starts at ``projects/``.
    :param branch: Branch id.
    :param endpoint: Endpoint id.
    :param instance: Name of a provisioned instance, instead of the three.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        host: str | None = None,
        project: str | None = None,
        branch: str | None = None,
        endpoint: str | None = None,
        instance: str | None = None,
    ) -> None:
        self._workspace = workspace
        self._asked = workspace.identity.asker
        self._host = host
        self._instance = instance
        self._project, self._branch, self._endpoint = self._split(project, branch, endpoint)

    def resolve(self) -> Endpoint:
        """Return the endpoint."""
        if self._instance:
            return self._provisioned(self._instance)
        if self._project:
            return self._in_project(f"projects/{self._project}")
        if self._host:
            return self._search(self._host)
        raise LakebaseResolutionError(f"{self._asked} names no Lakebase project. {_HINT}")

    def _split(self, *names: str | None) -> tuple[str | None, ...]:
        """Take resource names apart: any of the three may bring along what stands above it."""
        found = dict(zip(("project", "branch", "endpoint"), names, strict=True))
        for kind, name in list(found.items()):
            if name and "/" in name:
                if not (match := _PATH.fullmatch(name.strip("/"))):
                    raise LakebaseResolutionError(
                        f"{self._asked}: {kind} {name!r} is no resource name. {_HINT}"
                    )
                found[kind] = None
                found.update({part: value for part, value in match.groupdict().items() if value})
        return tuple(found.values())

    def _in_project(self, project: str) -> Endpoint:
        branch = f"{project}/branches/{self._branch}" if self._branch else self._default_branch(project)
        if not self._endpoint:
            return self._read_write(project, branch)
        name = f"{branch}/endpoints/{self._endpoint}"
        if self._host:
            return Endpoint(name, self._host)
        siblings = self._workspace.pages(f"postgres/{branch}/endpoints")
        with self._workspace.telling(f"endpoint {name!r}", siblings):
            return self._reachable(self._workspace.get(f"postgres/{name}"))

    def _default_branch(self, project: str) -> str:
        siblings = self._workspace.pages("postgres/projects")
        with self._workspace.telling(f"project {project!r}", siblings):
            status = self._workspace.get(f"postgres/{project}").get("status", {})
            if branch := status.get("default_branch"):
                return str(branch)
            branches = list(self._workspace.pages(f"postgres/{project}/branches"))
        for found in branches:
            if found.get("status", {}).get("default"):
                return str(found["name"])
        raise LakebaseResolutionError(
            f"{self._asked}: project {project!r} has no default branch; it has {listed(branches)}. Name one "
            "as branch in the extra of the connection, or make one the default."
        )

    def _read_write(self, project: str, branch: str) -> Endpoint:
        siblings = self._workspace.pages(f"postgres/{project}/branches")
        with self._workspace.telling(f"branch {branch!r}", siblings):
            endpoints = list(self._workspace.pages(f"postgres/{branch}/endpoints"))
        for endpoint in endpoints:
            if endpoint.get("status", {}).get("endpoint_type") == READ_WRITE:
                return self._reachable(endpoint)
        raise LakebaseResolutionError(
            f"{self._asked}: branch {branch!r} has no read-write endpoint; it has {listed(endpoints)}. "
            "Add one to the branch, or name another branch in the extra of the connection."
        )

    def _reachable(self, endpoint: dict[str, Any]) -> Endpoint:
        """Return an endpoint that has a host: one that is new, still starting, has none yet."""
        name, status = str(endpoint["name"]), endpoint.get("status", {})
        if status.get("disabled"):
            raise LakebaseResolutionError(f"{self._asked}: endpoint {name!r} is disabled. Enable it first.")
        if host := self._host or status.get("hosts", {}).get("host"):
            return Endpoint(name, str(host))
        raise LakebaseConnectionError(
            f"{self._asked}: endpoint {name!r} has no host yet; its state is "
            f"{status.get('current_state', 'unknown')}. Try again once it has started."
        )

    def _provisioned(self, name: str) -> Endpoint:
        siblings = self._workspace.pages("database/instances", "database_instances")
        with self._workspace.telling(f"instance {name!r}", siblings):
            instance = self._workspace.get(f"database/instances/{name}")
        if host := self._host or instance.get("read_write_dns"):
            return Endpoint(name, str(host), is_instance=True)
        raise LakebaseConnectionError(
            f"{self._asked}: instance {name!r} has no host; its state is {instance.get('state', 'unknown')}. "
            "Try again once it has started."
        )

    def _search(self, host: str) -> Endpoint:
        """Find the endpoint behind a host, as the console gives it, among all that the identity sees."""
        with self._workspace.telling(f"the endpoint of host {host!r}"):
            for endpoint in self._visible_endpoints():
                if endpoint.host == host:
                    log.info(
                        "%s: host %s belongs to %s. Put that into the extra, as endpoint or instance, and it "
                        "need not be searched for again.",
                        self._asked,
                        host,
                        endpoint.name,
                    )
                    return endpoint
        raise LakebaseResolutionError(
            f"{self._asked}: the {self._workspace.identity.name} sees no endpoint with host {host!r}, and "
            f"a credential is minted for an endpoint. {_HINT} Or set a native Postgres password."
        )

    def _visible_endpoints(self) -> Iterator[Endpoint]:
        """Yield every host that the identity may see, with the endpoint or instance it belongs to."""
        for instance in self._visible("database/instances", "database_instances"):
            for host in (instance.get("read_write_dns"), instance.get("read_only_dns")):
                yield Endpoint(instance["name"], host or "", is_instance=True)
        for project in self._visible("postgres/projects"):
            for branch in self._visible(f"postgres/{project['name']}/branches"):
                for endpoint in self._visible(f"postgres/{branch['name']}/endpoints"):
                    for host in endpoint.get("status", {}).get("hosts", {}).values():
                        yield Endpoint(endpoint["name"], host)

    def _visible(self, path: str, key: str | None = None) -> list[dict[str, Any]]:
        """Return a list as far as the identity may see it: a project closed to it is not the one it wants."""
        try:
            return list(self._workspace.pages(path, key))
        except RestError as err:
            if err.is_transient:
                raise
            log.debug("Left out of the search: %s", err)
            return []


def project_page(host: str | None, names: Mapping[str, str | None]) -> str | None:
    """
    Return the address of the page, or None when too little is named.

    :param host: The workspace, as users write it.
    :param names: ``instance``, or ``endpoint`` or ``project``: an id or a resource name.
    """
    if not host:
        return None
    parts = urlsplit(host if "://" in host else f"https://{host}")
    # Rebuilt, so that nothing that somebody put before an @ gets into a link.
    address = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    if instance := names.get("instance"):
        return f"{address}/compute/database-instances/{quote(instance, safe='')}"
    for name in (names.get("endpoint"), names.get("branch"), names.get("project")):
        if match := _PROJECT.match(name or ""):
            return f"{address}/lakebase/projects/{quote(match[1], safe='')}"
    project = names.get("project")
    return f"{address}/lakebase/projects/{quote(project, safe='')}" if project else None
