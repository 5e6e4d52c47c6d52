"""A small Databricks control plane over real HTTP, for LakebaseHook and the unmodified SDK."""

from __future__ import annotations

import base64
import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

READ_WRITE = "ENDPOINT_TYPE_READ_WRITE"
READ_ONLY = "ENDPOINT_TYPE_READ_ONLY"

Answer = tuple[int, dict[str, Any]]


@dataclass
class Fault:
    """A false response to requests whose method and path match."""

    pattern: str
    status: int
    code: str = "INTERNAL_ERROR"
    times: int = 1_000
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


@dataclass
class ControlPlane:
    """
    Serve one workspace on a loopback port, in a separate thread.

    Lists hold one item a page, so that every list is paged. ``on_mint`` sees each credential first.
    """

    client_id: str = "4f2c0e1a-0000-4000-8000-00000000c1e7"
    client_secret: str = "client-secret"
    on_mint: Callable[[str], None] = lambda token: None
    user_name: str = ""
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    minted: list[str] = field(default_factory=list)
    minted_for: list[str] = field(default_factory=list)

    def __enter__(self) -> ControlPlane:
        handler = type("BoundHandler", (_Handler,), {"plane": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.host = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, name: str, **status: Any) -> str:
        """Create a project, branch or endpoint with this resource name, or replace it."""
        self.resources[name] = {"name": name, "status": status}
        return name

    def put_endpoint(self, name: str, host: str | None, kind: str = READ_WRITE, **status: Any) -> str:
        """Create an endpoint with a host."""
        hosts = {"hosts": {"host": host}} if host else {}
        return self.put(name, endpoint_type=kind, current_state="ACTIVE", **hosts, **status)

    def put_weather(self, host: str | None) -> str:
        """Create the usual project: two branches, one default; two endpoints, one read-write."""
        project = self.put("projects/weather", default_branch="projects/weather/branches/production")
        self.put(f"{project}/branches/dev", default=False)
        branch = self.put(f"{project}/branches/production", default=True)
        self.put_endpoint(f"{branch}/endpoints/readers", "readers.invalid", READ_ONLY)
        return self.put_endpoint(f"{branch}/endpoints/primary", host)

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> Answer:
        """Respond to an authenticated request below ``/api/2.0/``."""
        match (method, path):
            case ("GET", "preview/scim/v2/Me"):
                return 200, {"userName": self.user_name or self.client_id}
            case ("POST", "postgres/credentials"):
                if body.get("endpoint") not in self.resources:
                    return 404, {"error_code": "NOT_FOUND", "message": "endpoint not found"}
                return self._mint(body["endpoint"], "expire_time")
            case ("POST", "database/credentials"):
                return self._mint(body["instance_names"][0], "expiration_time")
            case ("GET", _) if path.startswith("postgres/"):
                return self._read(path.removeprefix("postgres/"), self.resources, query)
            case ("GET", _) if path.startswith("database/instances"):
                return self._read(path.removeprefix("database/"), self.instances, query, "database_instances")
        return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": f"no API {method} {path}"}

    def _mint(self, endpoint: str, expiry: str) -> Answer:
        token = f"minted-{uuid.uuid4()}"
        self.on_mint(token)
        self.minted.append(token)
        self.minted_for.append(endpoint)
        return 200, {"token": token, expiry: "2100-01-01T00:00:00Z"}

    @staticmethod
    def _read(
        name: str, things: dict[str, dict[str, Any]], query: dict[str, str], key: str | None = None
    ) -> Answer:
        if name in things:
            return 200, things[name]
        parent, _, kind = name.rpartition("/")
        if kind not in ("projects", "branches", "endpoints", "instances") or (
            parent and parent not in things
        ):
            return 404, {"error_code": "NOT_FOUND", "message": f"{name} not found"}
        found = [thing for path, thing in sorted(things.items()) if re.fullmatch(f"{name}/[^/]+", path)]
        at = int(query.get("page_token", "0"))
        page = {key or kind: found[at : at + 1]} if found else {}
        return 200, {**page, "next_page_token": str(at + 1) if at + 1 < len(found) else ""}


class _Handler(BaseHTTPRequestHandler):
    plane: ControlPlane
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one packet: two would wait 40 ms for each other

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, *args: Any) -> None:
        """Log nothing."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = f"{self.command} {unquote(url.path)}"
        self.plane.requests.append(asked)
        for fault in self.plane.faults:
            if fault.times and re.search(fault.pattern, asked):
                fault.times -= 1
                # The worst a server can do: repeat what it was sent.
                message = f"failed on purpose, sent {self.headers['Authorization']}"
                body = {"error_code": fault.code, "message": message}
                return self._send(fault.status, fault.body or json.dumps(body), fault.headers)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        status, answer = self._answer(url.path, query, raw)
        return self._send(status, json.dumps(answer), {})

    def _answer(self, path: str, query: dict[str, str], raw: bytes) -> Answer:
        plane = self.plane
        proof = self.headers.get("Authorization", "")
        match path:
            case "/.well-known/databricks-config":
                return 200, {"oidc_endpoint": f"{plane.host}/oidc", "workspace_id": "42", "cloud": "AWS"}
            case "/oidc/.well-known/oauth-authorization-server":
                authorize, token = f"{plane.host}/oidc/v1/authorize", f"{plane.host}/oidc/v1/token"
                return 200, {"authorization_endpoint": authorize, "token_endpoint": token}
            case "/oidc/v1/token":
                known = base64.b64encode(f"{plane.client_id}:{plane.client_secret}".encode()).decode()
                if proof != f"Basic {known}" or b"grant_type=client_credentials" not in raw:
                    return 401, {"error": "invalid_client", "error_description": f"not known: {proof}"}
                plane.tokens.add(token := f"workspace-{uuid.uuid4()}")
                return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600}
        if proof.removeprefix("Bearer ") not in plane.tokens:
            return 401, {"error_code": "UNAUTHENTICATED", "message": f"token not valid: {proof}"}
        return plane.answer(
            self.command, unquote(path).removeprefix("/api/2.0/"), query, json.loads(raw or "{}")
        )

    def _send(self, status: int, body: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())
