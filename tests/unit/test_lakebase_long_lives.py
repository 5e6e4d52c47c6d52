"""Long-lived hooks, pools and engines: they recover when cached lookups are out of date."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakebaseResolutionError
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from tests.control_plane import ControlPlane, Fault
from tests.needs import SQLALCHEMY_2

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

BRANCH = "projects/weather/branches/production"
PRIMARY = f"{BRANCH}/endpoints/primary"


def get_conn(hook: LakebaseHook) -> None:
    hook.get_conn().close()


def aget_conn(hook: LakebaseHook) -> None:
    async def log_in() -> None:
        await (await hook.aget_conn()).close()

    asyncio.run(log_in())


def engine(hook: LakebaseHook) -> None:
    made = hook.get_sqlalchemy_engine()
    made.connect().close()
    made.dispose()


def pool(hook: LakebaseHook) -> None:
    with hook.get_pool(timeout=10) as made, made.connection():
        pass


WAYS = pytest.mark.parametrize(
    "log_in",
    [get_conn, aget_conn, pytest.param(engine, marks=SQLALCHEMY_2), pool],
    ids=lambda way: way.__name__,
)


@WAYS
def test_endpoint_that_was_replaced_is_looked_up_again(
    principal: ControlPlane, define: Callable[..., None], log_in: Callable[[LakebaseHook], None]
) -> None:
    define(extra={"project": "weather"})
    hook = LakebaseHook()
    log_in(hook)
    host = principal.resources.pop(PRIMARY)["status"]["hosts"]["host"]
    principal.put_endpoint(f"{BRANCH}/endpoints/second", host)

    log_in(hook)

    assert principal.minted_for[-1] == f"{BRANCH}/endpoints/second"


@SQLALCHEMY_2
def test_endpoint_that_was_replaced_before_the_first_login_is_too(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    define(extra={"project": "weather"})
    hook = LakebaseHook()
    hook.get_uri()
    host = principal.resources.pop(PRIMARY)["status"]["hosts"]["host"]
    principal.put_endpoint(f"{BRANCH}/endpoints/second", host)

    get_conn(hook)


def test_endpoint_that_is_gone_for_good_is_reported_once_looked_up_again(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    define(extra={"endpoint": PRIMARY})
    hook = LakebaseHook()
    get_conn(hook)
    del principal.resources[PRIMARY]

    with pytest.raises(LakebaseResolutionError, match="does not exist or is hidden"):
        get_conn(hook)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "Token is expired"),
        (403, "Invalid access token."),
        (403, "Token is expiring"),
        (403, "Token was revoked"),
        (403, "The access token expired"),
    ],
)
@pytest.mark.parametrize("where", ["credentials", "projects/weather$"])
def test_token_that_is_no_longer_taken_is_renewed(
    principal: ControlPlane, define: Callable[..., None], where: str, status: int, message: str
) -> None:
    body = f'{{"error_code": "PERMISSION_DENIED", "message": "{message}"}}'
    principal.faults.append(Fault(where, status, times=1, body=body))
    define(extra={"project": "weather"})

    get_conn(LakebaseHook())

    assert principal.requests.count("POST /oidc/v1/token") == 2


def test_token_that_stays_refused_is_not_a_matter_of_project_rights(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    body = '{"error_code": "PERMISSION_DENIED", "message": "Invalid access token."}'
    principal.faults.append(Fault("credentials", 403, body=body))
    define(extra={"project": "weather"})

    with pytest.raises(LakebaseCredentialError, match="check the identity's secret or token") as caught:
        get_conn(LakebaseHook())
    assert "Grant the identity" not in str(caught.value)


@WAYS
@pytest.mark.parametrize("kind", ["environment", "connection"])
def test_secret_that_was_rotated_is_read_again(
    principal: ControlPlane,
    define: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    log_in: Callable[[LakebaseHook], None],
    kind: str,
) -> None:
    def tell(secret: str) -> None:
        monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", secret)
        fields = {"host": principal.host, "login": principal.client_id, "password": secret}
        extra = {"service_principal_oauth": True}
        define(conn_id="dbx", conn_type="databricks", extra=extra, **fields)

    tell(principal.client_secret)
    define(extra={"project": "weather", **({"databricks_conn_id": "dbx"} if kind == "connection" else {})})
    hook = LakebaseHook()
    log_in(hook)

    principal.client_secret = "rotated-secret"
    principal.tokens.clear()
    tell("rotated-secret")

    log_in(hook)


def test_personal_token_that_was_rotated_is_read_again(
    workspace: ControlPlane, define: Callable[..., None], make_role: Callable[[str], None]
) -> None:
    workspace.user_name = "somebody@example.com"
    make_role("somebody@example.com")
    define(extra={"project": "weather", "databricks_conn_id": "dbx"})
    hook = LakebaseHook()
    for token in ("first-token", "second-token"):
        workspace.tokens = {token}
        define(conn_id="dbx", conn_type="databricks", host=workspace.host, password=token)

        get_conn(hook)


@WAYS
def test_native_password_that_was_rotated_is_read_again(
    postgres: EmbeddedPostgres,
    make_role: Callable[[str], None],
    define: Callable[..., None],
    log_in: Callable[[LakebaseHook], None],
    impatient: None,
) -> None:
    make_role("native")
    with psycopg.connect(postgres.conninfo(), autocommit=True) as admin:

        def rotate(password: str) -> None:
            admin.execute(sql.SQL("ALTER ROLE native PASSWORD {}").format(sql.Literal(password)))
            define(host=postgres.socket_dir, login="native", password=password)

        rotate("first-password")
        hook = LakebaseHook()
        log_in(hook)
        rotate("second-password")

        log_in(hook)


def test_native_password_that_is_refused_is_not_tried_twice(
    postgres: EmbeddedPostgres,
    make_role: Callable[[str], None],
    define: Callable[..., None],
    tries: list[Any],
) -> None:
    make_role("native")
    define(host=postgres.socket_dir, login="native", password="wrong-password")
    hook = LakebaseHook()
    for _ in range(2):
        with pytest.raises(LakebaseCredentialError):
            get_conn(hook)

    assert len(tries) == 2


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Count the logins."""
    made: list[Any] = []
    open_once = LakebaseHook._open_once

    def count(*args: Any) -> Any:
        made.append(args)
        return open_once(*args)

    monkeypatch.setattr(LakebaseHook, "_open_once", count)
    return made


def test_connection_that_was_given_is_never_replaced_by_a_stored_one(
    postgres: EmbeddedPostgres, make_role: Callable[[str], None], define: Callable[..., None]
) -> None:
    from airflow.sdk import Connection

    make_role("native")
    define(host=postgres.socket_dir, login="postgres", password="unused")
    given = Connection(
        conn_id="lakebase_default",
        conn_type="lakebase",
        host=postgres.socket_dir,
        login="native",
        password="wrong-password",
        schema="postgres",
    )
    hook = LakebaseHook(connection=given)

    for _ in range(2):
        with pytest.raises(LakebaseCredentialError, match="as role 'native'"):
            get_conn(hook)
