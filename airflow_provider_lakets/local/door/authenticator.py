"""Check logins to the local Lakebase: a valid credential for the endpoint, or a native password."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Protocol

import psycopg

from airflow_provider_lakets.local.api.faults import FaultName
from airflow_provider_lakets.local.api.workspace import READ_ONLY
from airflow_provider_lakets.local.door.credentials import CredentialRefusedError, looks_like_token
from airflow_provider_lakets.local.door.gateway import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow_provider_lakets.local.api.faults import Faults
    from airflow_provider_lakets.local.api.workspace import Branch, Endpoint, Workspace
    from airflow_provider_lakets.local.door.credentials import Claims, Issuer

INVALID_PASSWORD = "28P01"  # noqa: S105 - Postgres' error code
NOT_AUTHORIZED = "28000"
STARTING = "57P03"


class Servers(Protocol):
    """The Postgres server of each branch."""

    async def socket(self, branch: Branch) -> Path:
        """Return the Unix socket of a branch's server; start the server if necessary."""

    async def replica(self, branch: Branch) -> Path:
        """Return the Unix socket of the branch's hot standby; start it if necessary."""

    def running(self) -> Sequence[Path]:
        """Return the sockets of the running servers."""


class LakebaseAuthenticator:
    """
    Check logins as Lakebase does: a credential is checked only at login, so a session outlives it.

    :param workspace: Endpoints, roles, identities.
    :param issuer: The issuer of the credentials.
    :param faults: The active faults.
    :param branches: The Postgres server of each branch.
    :param default: The endpoint for connections to an unknown host.
    """

    def __init__(
        self, workspace: Workspace, issuer: Issuer, faults: Faults, branches: Servers, default: Endpoint
    ) -> None:
        self._workspace = workspace
        self._issuer = issuer
        self._faults = faults
        self._branches = branches
        self._default = default

    async def before_login(self, host: str) -> None:
        """Reject connections while the endpoint is suspended; each attempt counts."""
        if self._faults.take(FaultName.SUSPENDED):
            name = self._endpoint(host).name
            raise RefusedError(STARTING, "the database system is starting up", f"{name} was asleep.")

    async def authenticate(self, host: str, role: str, password: str) -> Path:
        """Check the password and return the socket of the endpoint's server."""
        endpoint = self._endpoint(host)
        branch = self._workspace.branch_of(endpoint)
        socket = await self._branches.socket(branch)
        if looks_like_token(password):
            self._check_credential(endpoint, role, password)
        else:
            await self._check_native(socket, role, password)
        return await self._branches.replica(branch) if endpoint.kind == READ_ONLY else socket

    def servers(self) -> Sequence[Path]:
        """Return the sockets of the servers that run."""
        return self._branches.running()

    def _endpoint(self, host: str) -> Endpoint:
        return self._workspace.endpoint_at(host) or self._default

    def _check_credential(self, endpoint: Endpoint, role: str, password: str) -> None:
        try:
            claims = self._issuer.check(password)
        except CredentialRefusedError as err:
            raise RefusedError(
                INVALID_PASSWORD,
                f'password authentication failed for user "{role}": {err}',
                "Mint a database credential for each login.",
            ) from err
        self._check_audience(claims, endpoint, role)
        roles = self._workspace.branch_of(endpoint).roles.values()
        if not any(known.postgres_role == role and known.identity == claims.identity for known in roles):
            raise RefusedError(
                NOT_AUTHORIZED,
                f'identity {claims.identity} may not log in as role "{role}" on {endpoint.name}',
                "Log in as the identity's own role, or have a Postgres role made for it.",
            )

    def _check_audience(self, claims: Claims, endpoint: Endpoint, role: str) -> None:
        if claims.audience == endpoint.name:
            return
        kind = "a workspace token" if claims.audience == self._issuer.name else f"for {claims.audience}"
        raise RefusedError(
            INVALID_PASSWORD,
            f'password authentication failed for user "{role}": the token is {kind}, '
            f"not a database credential for {endpoint.name}",
            "Mint one with POST /api/2.0/postgres/credentials for this endpoint.",
        )

    async def _check_native(self, socket: Path, role: str, password: str) -> None:
        query = "SELECT rolpassword FROM pg_authid WHERE rolname = %s AND rolcanlogin"
        async with await psycopg.AsyncConnection.connect(
            host=str(socket.parent), port=5432, user="postgres", dbname="postgres", autocommit=True
        ) as conn:
            row = await (await conn.execute(query, [role])).fetchone()
        if row is None or not row[0] or not matches_scram(password, row[0]):
            raise RefusedError(INVALID_PASSWORD, f'password authentication failed for user "{role}"')


def matches_scram(password: str, verifier: str) -> bool:
    """
    Return whether a password matches the verifier that Postgres stores.

    :param verifier: ``SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>``, RFC 5803.
    """
    try:
        mechanism, salted, keys = verifier.split("$")
        iterations, salt = salted.split(":")
        stored = base64.b64decode(keys.split(":")[0])
        key = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    except ValueError:
        return False
    client_key = hmac.digest(key, b"Client Key", "sha256")
    return mechanism == "SCRAM-SHA-256" and hmac.compare_digest(hashlib.sha256(client_key).digest(), stored)
