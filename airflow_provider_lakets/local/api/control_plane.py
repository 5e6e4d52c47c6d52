"""
The REST API of the local Lakebase, as the unmodified databricks-sdk calls it.

It reads resources, mints credentials, and manages databases and change feeds. Projects and branches
cannot be created here (see ``world``).
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from airflow_provider_lakets.local.api.databases import database_routes
from airflow_provider_lakets.local.api.faults import FaultName, Faults
from airflow_provider_lakets.local.api.requests import (
    MAX_TTL,
    Answer,
    ApiError,
    body_of,
    invalid,
    page_of,
    text,
    texts,
    ttl,
)
from airflow_provider_lakets.local.api.workspace import CdfConfig, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_lakets.local.api.databases import Databases
    from airflow_provider_lakets.local.api.workspace import Database, Workspace

WORKSPACE_ID = "1234567890123456"
TOKEN_TTL = 3600
_CDF_ID = re.compile(r"[a-z][a-z0-9_]{0,62}")


class FeedControl(Protocol):
    """The change feeds that the API controls."""

    async def start(self, database: Database, config: CdfConfig) -> None:
        """Start streaming."""

    async def stop(self, database: Database, config: CdfConfig) -> None:
        """Stop streaming; the history stays."""

    async def statuses(self, database: Database, config: CdfConfig) -> list[Answer]:
        """Return the state of each table, as in the REST API."""


class Claims(Protocol):
    """The identity and the purpose of a token."""

    @property
    def identity(self) -> str:
        """The application id or user name."""

    @property
    def audience(self) -> str:
        """The endpoint, or the workspace's URL."""


class Issuer(Protocol):
    """Issues tokens and credentials, and checks them."""

    def issue(self, identity: str, audience: str, ttl: int, **claims: Any) -> tuple[str, int]:
        """Return a token and its expiry time, in seconds since the epoch."""

    def check(self, token: str) -> Claims:
        """
        Return the claims of a valid token.

        :raises ValueError: if the token is from another issuer, or has expired.
        """


class ControlPlane:
    """
    Serve the REST API of a workspace.

    :param workspace: The resources.
    :param url: The URL of the workspace.
    :param issuer: Issues tokens and credentials.
    :param faults: The active faults.
    :param feeds: The change feeds.
    :param databases: The databases of each branch.
    """

    def __init__(
        self,
        workspace: Workspace,
        url: str,
        issuer: Issuer,
        faults: Faults,
        feeds: FeedControl,
        databases: Databases,
    ) -> None:
        self.workspace = workspace
        self.url = url
        self.issuer = issuer
        self.faults = faults
        self.feeds = feeds
        self.databases = databases
        self._operations: dict[str, Answer] = {}

    def app(self) -> FastAPI:
        """Return the ASGI application."""
        app = FastAPI(title="Local Lakebase", openapi_url=None)
        app.add_exception_handler(ApiError, _as_answer)
        app.add_exception_handler(404, _no_such_api)
        app.add_exception_handler(405, _no_such_api)
        app.include_router(self._sign_in())
        databases = database_routes(self.workspace, self.databases, self.identity, self._done)
        app.include_router(databases, prefix="/api/2.0/postgres")
        app.include_router(self._projects(), prefix="/api/2.0/postgres")
        app.include_router(self._feeds(), prefix="/api/2.0/postgres")
        app.include_router(self._instances(), prefix="/api/2.0/database")
        return app

    def identity(self, request: Request) -> str:
        """Return the identity of the caller, who must send a valid token of this workspace."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            claims = self.issuer.check(token)
        except ValueError as err:
            raise ApiError(
                401, "UNAUTHENTICATED", f"Credential was not sent or was of an unsupported type: {err}."
            ) from err
        if claims.audience != self.url:
            raise ApiError(401, "UNAUTHENTICATED", "The token is not for the API of this workspace.")
        return claims.identity

    def _sign_in(self) -> APIRouter:
        router = APIRouter()

        @router.get("/.well-known/databricks-config")
        def config() -> Answer:
            return {"oidc_endpoint": f"{self.url}/oidc", "workspace_id": WORKSPACE_ID, "cloud": "AWS"}

        @router.get("/oidc/.well-known/oauth-authorization-server")
        def oidc() -> Answer:
            return {
                "issuer": f"{self.url}/oidc",
                "authorization_endpoint": f"{self.url}/oidc/v1/authorize",
                "token_endpoint": f"{self.url}/oidc/v1/token",
            }

        @router.post("/oidc/v1/token")
        async def token(request: Request) -> Any:
            client_id = self._client(request.headers.get("authorization", ""))
            if client_id is None:
                found = {"error": "invalid_client", "error_description": "Client authentication failed"}
                return JSONResponse(found, status_code=401)
            form = (await request.body()).decode(errors="replace")
            if "grant_type=client_credentials" not in form:
                return JSONResponse({"error": "unsupported_grant_type"}, status_code=400)
            access_token, _ = self.issuer.issue(client_id, self.url, TOKEN_TTL, scope="all-apis")
            return {
                "access_token": access_token,
                "token_type": "Bearer",
                "expires_in": TOKEN_TTL,
                "scope": "all-apis",
            }

        @router.get("/api/2.0/preview/scim/v2/Me")
        def me(identity: str = Depends(self.identity)) -> Answer:
            name = self.workspace.principals[identity].name
            return {"id": identity, "userName": identity, "displayName": name, "active": True}

        return router

    def _client(self, authorization: str) -> str | None:
        kind, _, value = authorization.partition(" ")
        try:
            client_id, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:
            return None
        principal = self.workspace.principals.get(client_id)
        if kind != "Basic" or principal is None:
            return None
        return (
            client_id if secrets.compare_digest(secret.encode(), principal.client_secret.encode()) else None
        )

    def _projects(self) -> APIRouter:
        router = APIRouter(dependencies=[Depends(self.identity)])
        projects = self.workspace.projects

        def project(name: str) -> Any:
            return _find(projects, f"projects/{name}")

        def branch(project_id: str, branch_id: str) -> Any:
            return _find(project(project_id).branches, f"projects/{project_id}/branches/{branch_id}")

        @router.get("/projects")
        def list_projects(request: Request) -> Answer:
            return _page(request, "projects", projects.values())

        @router.get("/projects/{p}")
        def get_project(p: str) -> Answer:
            return project(p).answer()  # type: ignore[no-any-return]

        @router.get("/projects/{p}/branches")
        def list_branches(p: str, request: Request) -> Answer:
            return _page(request, "branches", project(p).branches.values())

        @router.get("/projects/{p}/branches/{b}")
        def get_branch(p: str, b: str) -> Answer:
            return branch(p, b).answer()  # type: ignore[no-any-return]

        @router.get("/projects/{p}/branches/{b}/{kind}")
        def list_children(p: str, b: str, kind: str, request: Request) -> Answer:
            children = _children(branch(p, b), kind).values()
            return page_of(request, kind, [self._answer(child) for child in children])

        @router.get("/projects/{p}/branches/{b}/{kind}/{c}")
        def get_child(p: str, b: str, kind: str, c: str) -> Answer:
            parent = branch(p, b)
            return self._answer(_find(_children(parent, kind), f"{parent.name}/{kind}/{c}"))

        @router.post("/credentials")
        async def generate(request: Request, identity: str = Depends(self.identity)) -> Answer:
            asked = await body_of(request)
            name = text(asked, "endpoint")
            endpoint = self.workspace.endpoint(name)
            if endpoint is None:
                raise ApiError(404, "NOT_FOUND", f"Endpoint {name!r} does not exist.")
            token, expires = await self._mint(identity, endpoint.name, ttl(asked))
            return {"token": token, "expire_time": _instant(expires)}

        return router

    def _answer(self, child: Any) -> Answer:
        """Return a child resource; reading a suspended endpoint does not resume it."""
        answer: Answer = child.answer()
        if isinstance(child, Endpoint) and FaultName.SUSPENDED in self.faults.active:
            answer["status"]["current_state"] = "IDLE"
        return answer

    async def _mint(self, identity: str, endpoint: str, ttl: int) -> tuple[str, int]:
        if fault := self.faults.take(FaultName.MINT_SLOW):
            await asyncio.sleep(fault.seconds)
        if self.faults.take(FaultName.MINT_429):
            raise ApiError(429, "REQUEST_LIMIT_EXCEEDED", "Too many credentials.", {"Retry-After": "1"})
        if self.faults.take(FaultName.MINT_500):
            raise ApiError(500, "INTERNAL_ERROR", "Minting failed.")
        audience = self.url if self.faults.take(FaultName.TOKEN_WRONG_KIND) else endpoint
        if self.faults.take(FaultName.TOKEN_EXPIRED):
            ttl = -1
        return self.issuer.issue(identity, audience, ttl, scope="postgres")

    def _instances(self) -> APIRouter:
        router = APIRouter(dependencies=[Depends(self.identity)])
        instances = self.workspace.instances

        @router.get("/instances")
        def list_instances(request: Request) -> Answer:
            return _page(request, "database_instances", instances.values())

        @router.get("/instances/{name}")
        def get_instance(name: str) -> Answer:
            return _find(instances, name, "Database instance").answer()  # type: ignore[no-any-return]

        @router.post("/credentials")
        async def generate(request: Request, identity: str = Depends(self.identity)) -> Answer:
            names = texts(await body_of(request), "instance_names")
            if len(names) != 1:
                raise invalid(f"instance_names takes one name, not {len(names)}.")
            instance = _find(instances, names[0], "Database instance")
            token, expires = await self._mint(identity, instance.endpoint.name, MAX_TTL)
            return {"token": token, "expiration_time": _instant(expires)}

        return router

    def _feeds(self) -> APIRouter:
        base = "/projects/{p}/branches/{b}/databases/{d}/cdf-configs"
        router = APIRouter(dependencies=[Depends(self.identity)])

        def database(p: str, b: str, d: str) -> Database:
            name = f"projects/{p}/branches/{b}/databases/{d}"
            found = self.workspace.database(name)
            if found is None:
                raise ApiError(404, "NOT_FOUND", f"Database {name!r} does not exist.")
            return found

        @router.get(base)
        def list_configs(p: str, b: str, d: str, request: Request) -> Answer:
            return _page(request, "cdf_configs", database(p, b, d).cdf_configs.values())

        @router.post(base)
        async def create(p: str, b: str, d: str, request: Request) -> Answer:
            parent = database(p, b, d)
            config = _new_config(parent, await body_of(request), request.query_params.get("cdf_config_id"))
            await self.feeds.start(parent, config)
            parent.cdf_configs[config.name] = config
            return self._done(config.name, config.answer())

        @router.get(base + "/{c}")
        def get_config(p: str, b: str, d: str, c: str) -> Answer:
            parent = database(p, b, d)
            return _find(parent.cdf_configs, f"{parent.name}/cdf-configs/{c}").answer()  # type: ignore[no-any-return]

        @router.delete(base + "/{c}")
        async def delete(p: str, b: str, d: str, c: str) -> Answer:
            parent = database(p, b, d)
            config = _find(parent.cdf_configs, f"{parent.name}/cdf-configs/{c}")
            await self.feeds.stop(parent, config)
            del parent.cdf_configs[config.name]
            return self._done(config.name, {})

        @router.get("/{parent:path}/operations/{o}")
        def get_operation(parent: str, o: str) -> Answer:
            return dict(_find(self._operations, f"{parent}/operations/{o}", "Operation"))

        @router.get(base + "/{c}/cdf-statuses")
        async def list_statuses(p: str, b: str, d: str, c: str, request: Request) -> Answer:
            parent = database(p, b, d)
            config = _find(parent.cdf_configs, f"{parent.name}/cdf-configs/{c}")
            return page_of(request, "cdf_statuses", await self.feeds.statuses(parent, config))

        @router.get(base + "/{c}/cdf-statuses/{s}")
        async def get_status(p: str, b: str, d: str, c: str, s: str) -> Answer:
            parent = database(p, b, d)
            config = _find(parent.cdf_configs, f"{parent.name}/cdf-configs/{c}")
            found = {status["name"]: status for status in await self.feeds.statuses(parent, config)}
            return dict(_find(found, f"{config.name}/cdf-statuses/{s}"))

        return router

    def _done(self, name: str, response: Answer) -> Answer:
        """Return a finished operation; the SDK polls it once anyway."""
        name = f"{name}/operations/{secrets.token_hex(8)}"
        self._operations[name] = {"name": name, "done": True, "response": response}
        return self._operations[name]


def _new_config(database: Database, asked: Answer, config_id: str | None) -> CdfConfig:
    wanted = {key: text(asked, key) for key in ("catalog", "schema", "postgres_schema")}
    if missing := [key for key, value in wanted.items() if not value]:
        raise invalid(f"The change feed lacks {', '.join(missing)}.")
    config_id = config_id or wanted["postgres_schema"]
    if not _CDF_ID.fullmatch(config_id):
        raise invalid(f"{config_id!r} is not an id of a change feed: {_CDF_ID.pattern}")
    name = f"{database.name}/cdf-configs/{config_id}"
    if name in database.cdf_configs:
        raise ApiError(409, "ALREADY_EXISTS", f"{name!r} exists already.")
    return CdfConfig(name, **wanted)


def _children(branch: Any, kind: str) -> dict[str, Any]:
    if kind not in ("endpoints", "roles"):
        raise ApiError(404, "ENDPOINT_NOT_FOUND", f"Branches have no list of {kind}.")
    return getattr(branch, kind)  # type: ignore[no-any-return]


def _find(things: dict[str, Any], name: str, kind: str = "Resource") -> Any:
    if name not in things:
        raise ApiError(404, "NOT_FOUND", f"{kind} {name!r} does not exist.")
    return things[name]


def _page(request: Request, key: str, things: Iterable[Any]) -> Answer:
    return page_of(request, key, [thing.answer() for thing in things])


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")


def _as_answer(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)  # noqa: S101 - registered for this class only
    body = {"error_code": error.code, "message": str(error)}
    return JSONResponse(body, status_code=error.status, headers=error.headers)


def _no_such_api(request: Request, _: Exception) -> JSONResponse:
    message = f"No API found for '{request.method} {request.url.path}'"
    return JSONResponse({"error_code": "ENDPOINT_NOT_FOUND", "message": message}, status_code=404)
