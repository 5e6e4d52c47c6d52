"""No secret in any exception, log line or output, whatever goes wrong."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.databricks.hooks.databricks_base import BaseDatabricksHook

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from tests.control_plane import ControlPlane, Fault
from tests.needs import SQLALCHEMY_2
from tests.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

CLIENT_SECRET = "sentinel-of-the-client"
PASSWORD = "sentinel-of-the-native-role"
TOKEN = "sentinel-of-somebody"
PROXY = "sentinel-of-the-proxy"


def told_by(error: BaseException | None) -> Iterator[str]:
    """Yield all text of an exception and its causes that could reach a log or a crash report."""
    while error:
        yield f"{error}\n{error!r}\n{error.args!r}\n{vars(error)!r}"
        yield from told_by(error.__cause__)
        error = error.__context__


class Scene:
    """The fixtures of a failure, with a method that runs it and returns all output."""

    def __init__(self, plane: ControlPlane, define: Callable[..., None], patch: pytest.MonkeyPatch) -> None:
        self.plane = plane
        self.define = define
        self.patch = patch

    def secrets(self) -> list[str]:
        basic = base64.b64encode(f"{self.plane.client_id}:{CLIENT_SECRET}".encode()).decode()
        return [CLIENT_SECRET, PASSWORD, TOKEN, PROXY, basic, *self.plane.tokens, *self.plane.minted]

    def come_to_light(self, log_in: Callable[[LakebaseHook], object]) -> str:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind, the secrets are what counts
            log_in(LakebaseHook())
        assert isinstance(caught.value, LakeTSError) or caught.type.__module__.startswith("psycopg")
        return "\n".join(told_by(caught.value))


@pytest.fixture
def scene(
    workspace: ControlPlane, define: Callable[..., None], impatient: None, monkeypatch: pytest.MonkeyPatch
) -> Scene:
    workspace.client_secret = CLIENT_SECRET
    monkeypatch.setenv("DATABRICKS_HOST", workspace.host)
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", workspace.client_id)
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", CLIENT_SECRET)
    define(extra={"project": "weather"})
    return Scene(workspace, define, monkeypatch)


def credential_unknown_to_postgres(scene: Scene) -> None:
    scene.plane.on_mint = lambda token: None


def endpoint_asleep(scene: Scene) -> None:
    scene.plane.put_weather("/nowhere")


def minting_denied(scene: Scene) -> None:
    scene.plane.faults.append(Fault("credentials", 403, "PERMISSION_DENIED"))


def minting_overloaded(scene: Scene) -> None:
    scene.plane.faults.append(Fault("credentials", 429))


def project_denied(scene: Scene) -> None:
    scene.plane.faults.append(Fault("projects/weather", 403, "PERMISSION_DENIED"))


def project_unknown(scene: Scene) -> None:
    scene.define(extra={"project": "wether"})


def identity_withdrawn(scene: Scene) -> None:
    scene.plane.faults.append(Fault("projects/weather", 401, "UNAUTHENTICATED"))


def secret_refused(scene: Scene) -> None:
    scene.plane.client_secret = "another"


def token_endpoint_broken(scene: Scene) -> None:
    scene.plane.faults.append(Fault("oidc/v1/token", 500))


def token_endpoint_answers_nonsense(scene: Scene) -> None:
    scene.plane.faults.append(Fault("oidc/v1/token", 200, body='{"token_type": "Bearer"}'))


def clear_text_asked_for(scene: Scene) -> None:
    scene.plane.put_weather("ep-x.example.com")
    scene.define(extra={"project": "weather", "sslmode": "disable"})


def argument_misspelt(scene: Scene) -> None:
    scene.define(extra={"project": "weather", "sslmod": "require"})


def native_password_refused(scene: Scene) -> None:
    host = scene.plane.resources["projects/weather/branches/production/endpoints/primary"]["status"]["hosts"][
        "host"
    ]
    scene.define(host=host, login=scene.plane.client_id, password=PASSWORD)


def personal_token_refused(scene: Scene) -> None:
    scene.define(conn_id="dbx", conn_type="databricks", host=scene.plane.host, password=TOKEN)
    scene.define(extra={"project": "weather", "databricks_conn_id": "dbx"})


def provider_chokes_on_its_token(scene: Scene) -> None:
    def choke(hook: BaseDatabricksHook, raise_error: bool = False) -> str:
        raise RuntimeError(f"Can't get necessary data from OAuth token: {{'access_token': '{TOKEN}'}}")

    scene.patch.setattr(BaseDatabricksHook, "_get_token", choke)
    personal_token_refused(scene)


def proxy_out_of_order(scene: Scene) -> None:
    scene.patch.setenv("NO_PROXY", "")
    scene.define(
        conn_id="dbx",
        conn_type="databricks",
        host=scene.plane.host,
        login=scene.plane.client_id,
        password=CLIENT_SECRET,
        extra={"service_principal_oauth": True, "proxies": {"http": f"http://me:{PROXY}@127.0.0.1:1"}},
    )
    scene.define(extra={"project": "weather", "databricks_conn_id": "dbx"})


def environment_names_two_identities(scene: Scene) -> None:
    scene.patch.setenv("DATABRICKS_TOKEN", TOKEN)


def sdk_token_refused(scene: Scene) -> None:
    scene.patch.delenv("DATABRICKS_CLIENT_ID")
    scene.patch.delenv("DATABRICKS_CLIENT_SECRET")
    scene.patch.setenv("DATABRICKS_TOKEN", TOKEN)


FAILURES = [
    credential_unknown_to_postgres,
    endpoint_asleep,
    minting_denied,
    minting_overloaded,
    project_denied,
    project_unknown,
    identity_withdrawn,
    secret_refused,
    token_endpoint_broken,
    token_endpoint_answers_nonsense,
    clear_text_asked_for,
    argument_misspelt,
    native_password_refused,
    personal_token_refused,
    provider_chokes_on_its_token,
    proxy_out_of_order,
    environment_names_two_identities,
    sdk_token_refused,
]


@pytest.mark.parametrize("stage", FAILURES, ids=lambda stage: stage.__name__)
def test_failure_shows_no_secret(
    scene: Scene,
    stage: Callable[[Scene], None],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    stage(scene)

    told = scene.come_to_light(lambda hook: hook.get_conn())

    seen = told + caplog.text + "".join(capfd.readouterr())
    assert [secret for secret in scene.secrets() if secret in seen] == []


def connect_asynchronously(hook: LakebaseHook) -> object:
    return asyncio.run(hook.aget_conn())


def connect_from_a_pool(hook: LakebaseHook) -> None:
    with hook.get_pool(timeout=0.2) as pool, pool.connection():
        pass


def connect_from_an_engine(hook: LakebaseHook) -> object:
    return hook.get_sqlalchemy_engine().connect()


@pytest.mark.parametrize(
    "log_in",
    [
        pytest.param(connect_asynchronously, id="event loop"),
        pytest.param(connect_from_a_pool, id="pool"),
        pytest.param(connect_from_an_engine, id="engine", marks=SQLALCHEMY_2),
    ],
)
def test_refused_login_shows_no_secret_on_other_ways_either(
    scene: Scene,
    log_in: Callable[[LakebaseHook], object],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    credential_unknown_to_postgres(scene)

    told = scene.come_to_light(log_in)

    seen = told + caplog.text + "".join(capfd.readouterr())
    assert scene.plane.minted
    assert [secret for secret in scene.secrets() if secret in seen] == []


def test_refused_tls_shows_no_secret(
    scene: Scene, postgres: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    scene.plane.put_weather("127.0.0.1")
    with Relay(f"{postgres.socket_dir}/.s.PGSQL.5432", []) as relay:
        scene.define(port=relay.port, extra={"project": "weather"})

        told = scene.come_to_light(lambda hook: hook.get_conn())

    assert "server does not support SSL, but SSL was required. Without sslmode the certificate of the" in told
    assert [secret for secret in scene.secrets() if secret in told + caplog.text] == []


def test_successful_login_leaves_no_secret_behind(
    scene: Scene, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    hook = LakebaseHook()
    hook.get_conn().close()

    kept: list[Any] = [hook.connection, vars(hook.connection), hook.connection.get_uri(), vars(hook)]
    kept += [hook.test_connection(), caplog.text, capfd.readouterr()]

    assert [secret for secret in scene.secrets() if secret in repr(kept)] == []


@SQLALCHEMY_2
def test_engine_and_its_url_hold_no_secret(scene: Scene) -> None:
    hook = LakebaseHook()

    kept = [hook.get_sqlalchemy_engine(), hook.get_uri(), vars(hook)]

    assert [secret for secret in scene.secrets() if secret in repr(kept)] == []
