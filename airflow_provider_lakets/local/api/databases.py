"""The routes that list, create and drop the databases of a branch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from fastapi import APIRouter, Depends, Request
from psycopg import sql

from airflow_provider_lakets.local.api.requests import Answer, ApiError, body_of, invalid, page_of, text
from airflow_provider_lakets.local.api.workspace import database_id
from airflow_provider_lakets.local.pg.postgres import DEFAULT_DATABASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.api.workspace import Branch, Database, Workspace

_ID = re.compile(r"[a-z0-9]([a-z0-9-]{2,61})[a-z0-9]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}")  # a name that a database id can represent

_DATABASES = """
SELECT db.datname, pg_catalog.pg_get_userbyid(db.datdba) FROM pg_catalog.pg_database AS db
 WHERE NOT db.datistemplate AND db.datname <> 'postgres' ORDER BY db.oid
"""


class Servers(Protocol):
    """The Postgres server of each branch; it starts on first use."""

    async def superuser(self, branch: Branch) -> str:
        """Return a connection string of the superuser, for database ``postgres``."""


class Databases:
    """
    The databases of all branches, read from Postgres each time: SQL can create databases too.

    :param servers: The servers with the databases.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def update(self, branch: Branch) -> None:
        """Update the databases of a branch from its server."""
        found = dict(await self._run(branch, sql.SQL(_DATABASES)))
        known = {database.postgres_database for database in branch.databases.values()}
        for name in found.keys() - known:
            branch.add_database(name)
        for database in list(branch.databases.values()):
            if database.postgres_database not in found:
                del branch.databases[database.name]
            else:
                database.owner = found[database.postgres_database]

    async def create(self, branch: Branch, name: str, owner: str) -> Database:
        """
        Create a database.

        :param owner: The Postgres role that owns it.
        """
        await self._run(
            branch,
            sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner)),
        )
        database = branch.add_database(name)
        database.owner = owner
        return database

    async def drop(self, branch: Branch, database: Database) -> None:
        """Drop a database, and end the sessions in it."""
        await self._run(
            branch,
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
                sql.Identifier(database.postgres_database)
            ),
        )
        branch.databases.pop(database.name, None)

    async def _run(self, branch: Branch, statement: sql.SQL | sql.Composed) -> list[Any]:
        conninfo = await self._servers.superuser(branch)
        try:
            async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as conn:
                cursor = await conn.execute(statement)
                return await cursor.fetchall() if cursor.description else []
        except psycopg.errors.DuplicateDatabase as err:
            raise ApiError(409, "ALREADY_EXISTS", f"{err.diag.message_primary}.") from err


def database_routes(
    workspace: Workspace,
    databases: Databases,
    identity: Callable[[Request], str],
    done: Callable[[str, Answer], Answer],
) -> APIRouter:
    """
    Return the routes of databases.

    :param identity: Returns the identity of the caller.
    :param done: Returns a finished operation with its result.
    """
    base = "/projects/{p}/branches/{b}/databases"
    router = APIRouter(dependencies=[Depends(identity)])

    async def branch_of(p: str, b: str) -> Branch:
        name = f"projects/{p}/branches/{b}"
        branch = workspace.branch(name)
        if branch is None:
            raise ApiError(404, "NOT_FOUND", f"Resource {name!r} does not exist.")
        await databases.update(branch)
        return branch

    def database_of(branch: Branch, d: str) -> Database:
        name = f"{branch.name}/databases/{d}"
        if name not in branch.databases:
            raise ApiError(404, "NOT_FOUND", f"Resource {name!r} does not exist.")
        return branch.databases[name]

    @router.get(base)
    async def list_databases(p: str, b: str, request: Request) -> Answer:
        branch = await branch_of(p, b)
        return page_of(request, "databases", [one.answer() for one in branch.databases.values()])

    @router.get(base + "/{d}")
    async def get_database(p: str, b: str, d: str) -> Answer:
        return database_of(await branch_of(p, b), d).answer()

    @router.post(base)
    async def create(p: str, b: str, request: Request, caller: str = Depends(identity)) -> Answer:
        spec = (await body_of(request)).get("spec") or {}
        if not isinstance(spec, dict):
            raise invalid("spec takes an object.")
        name = _name(text(spec, "postgres_database"), request.query_params.get("database_id") or "")
        branch = await branch_of(p, b)
        owner = _owner(branch, text(spec, "role"), caller)
        if f"{branch.name}/databases/{database_id(name)}" in branch.databases:
            raise ApiError(
                409, "ALREADY_EXISTS", f"Database {database_id(name)!r} exists already in {branch.name}."
            )
        made = await databases.create(branch, name, owner)
        return done(made.name, made.answer())

    @router.delete(base + "/{d}")
    async def delete(p: str, b: str, d: str) -> Answer:
        branch = await branch_of(p, b)
        database = database_of(branch, d)
        if database.postgres_database == DEFAULT_DATABASE:
            raise ApiError(
                400,
                "FAILED_PRECONDITION",
                f"{database.name} cannot be deleted: it is the default database of the branch.",
            )
        await databases.drop(branch, database)
        return done(database.name, {})

    return router


def _name(name: str, asked_id: str) -> str:
    """Return the name of a new database; the id is also the name if no name is given."""
    if asked_id and not _ID.fullmatch(asked_id):
        raise invalid(f"{asked_id[:70]!r} is not an id of a database: 4 to 63 of a-z, 0-9 and '-'.")
    name = name or asked_id
    if not name:
        raise invalid("A new database requires spec.postgres_database.")
    if not _NAME.fullmatch(name):
        raise invalid(f"{name[:70]!r} is not a name of a database: {_NAME.pattern}")
    if asked_id and asked_id != database_id(name):
        raise invalid(
            f"The id of a database follows from its name: the id of {name!r} is {database_id(name)!r}, "
            f"not {asked_id!r}."
        )
    return name


def _owner(branch: Branch, role: str, caller: str) -> str:
    """Return the Postgres role that owns a new database; by default the caller's."""
    if not role:
        return caller
    if role not in branch.roles:
        raise invalid(f"There is no role {role[:200]!r} in {branch.name}.")
    return branch.roles[role].postgres_role
