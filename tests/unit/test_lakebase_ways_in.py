"""Secrets with copied white space, from each source: stripped, or refused without being shown."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psutil
import pytest
from airflow.serialization.serialized_objects import BaseSerialization
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from typer.testing import CliRunner

from airflow_provider_lakets.cli import app
from airflow_provider_lakets.exceptions import LakebaseCredentialError
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.sensors.durability import LakeTSDurabilitySensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.control_plane import ControlPlane
    from tests.lab import Lab

TOKEN = "sentinel-of-somebody"
USER = "somebody@example.com"


class Ways:
    """The places that a token or a secret may come from."""

    def __init__(self, plane: ControlPlane, define: Callable[..., None], patch: pytest.MonkeyPatch) -> None:
        self.plane, self.define, self.patch = plane, define, patch
        self.profiles = Path()
        self.native: dict[str, Any] = {}

    def use(self, **databricks: Any) -> None:
        self.define(conn_id="dbx", conn_type="databricks", host=self.plane.host, **databricks)
        self.define(extra={"project": "weather", "databricks_conn_id": "dbx"})

    def password(self, token: str) -> None:
        self.use(password=token)

    def extra(self, token: str) -> None:
        self.use(extra={"token": token})

    def uri(self, token: str) -> None:
        scheme, _, host = self.plane.host.partition("://")
        self.define(f"databricks://:{quote(token, safe='')}@{host}/{scheme}", conn_id="dbx")
        self.define(extra={"project": "weather", "databricks_conn_id": "dbx"})

    def environment(self, token: str) -> None:
        self.patch.setenv("DATABRICKS_HOST", self.plane.host)
        self.patch.setenv("DATABRICKS_TOKEN", token)
        self.define(extra={"project": "weather"})

    def client_secret(self, secret: str) -> None:
        self.plane.client_secret = TOKEN
        extra = {"service_principal_oauth": True}
        self.use(login=self.plane.client_id, password=secret, extra=extra)

    def client_secret_of_the_environment(self, secret: str) -> None:
        self.plane.client_secret = TOKEN
        self.patch.setenv("DATABRICKS_HOST", self.plane.host)
        self.patch.setenv("DATABRICKS_CLIENT_ID", f" {self.plane.client_id}\n")
        self.patch.setenv("DATABRICKS_CLIENT_SECRET", secret)
        self.define(extra={"project": "weather"})

    def profile(self, token: str) -> None:
        self.profiles.write_text(f"[DEFAULT]\nhost = {self.plane.host}\ntoken = {token}\n")
        self.patch.setenv("DATABRICKS_CONFIG_FILE", str(self.profiles))
        self.define(extra={"project": "weather"})

    def native_password(self, password: str) -> None:
        self.plane.on_mint(password)
        self.define(**self.native, password=password)

    def native_uri(self, password: str) -> None:
        self.plane.on_mint(password)
        host = quote(self.native["host"], safe="")
        where = f"{self.plane.client_id}:{quote(password, safe='')}@{host}/{self.native['schema']}"
        self.define(f"lakebase://{where}")


WAYS = ["password", "extra", "uri", "environment", "client_secret", "client_secret_of_the_environment"]


@pytest.fixture
def ways(
    workspace: ControlPlane,
    define: Callable[..., None],
    make_role: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    impatient: None,
) -> Ways:
    workspace.tokens.add(TOKEN)
    return Ways(workspace, define, monkeypatch)


def let_somebody_in(ways: Ways, way: str, make_role: Callable[[str], None]) -> None:
    if not way.startswith("client_secret"):  # with these the role is the principal's
        ways.plane.user_name = USER
        make_role(USER)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("around", ["{}\n", " {}\r\n", "\t{} "], ids=["newline", "CRLF", "spaces"])
def test_white_space_around_a_secret_does_no_harm(
    ways: Ways, make_role: Callable[[str], None], way: str, around: str
) -> None:
    let_somebody_in(ways, way, make_role)
    getattr(ways, way)(around.format(TOKEN))

    LakebaseHook().get_conn().close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("broken", ["\n", "\x1b[31m", "\u200b", "\r\nX-Evil: 1", "é"])
def test_broken_secret_is_refused_and_nowhere_to_be_seen(
    ways: Ways,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    way: str,
    broken: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    getattr(ways, way)(f"sentinel-head{broken}sentinel-tail")
    hook = LakebaseHook()

    with pytest.raises(LakebaseCredentialError, match="is broken: character") as caught:
        hook.get_conn()
    done, answer = LakebaseHook().test_connection()

    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    seen = "".join(map(repr, chain)) + answer + caplog.text + "".join(capfd.readouterr())
    assert not done
    assert "sentinel" not in seen


def test_broken_secret_of_a_profile_is_refused(ways: Ways, tmp_path: Path) -> None:
    profile = tmp_path / "databrickscfg"
    profile.write_text(f"[DEFAULT]\nhost = {ways.plane.host}\ntoken = sentinel\u200bsentinel\n")
    ways.patch.setenv("DATABRICKS_CONFIG_FILE", str(profile))
    ways.define(extra={"project": "weather"})

    with pytest.raises(LakebaseCredentialError) as caught:
        LakebaseHook().get_conn()

    assert "sentinel" not in repr(caught.value)


@pytest.mark.parametrize(
    "stored",
    [
        "postgresql://user:sentinel/x@h/db",
        "lakebase://user:sentinel@h:port/db",
        "lakebase://user:sentinel@[h/db",
        "lakebase://a://b://user:sentinel@h/db",
        json.dumps({"conn_type": "lakebase", "port": "sentinel"}),
        "{sentinel",
    ],
)
def test_stored_connection_that_cannot_be_read_is_not_repeated(
    bare_environment: None, monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", stored)

    done, answer = LakebaseHook().test_connection()

    assert not done
    assert "sentinel" not in answer


def deferred(task: Any, context: Any) -> Any:
    """Return the trigger of a deferred task."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - it is elsewhere in Airflow 3.1
        task.execute(context)
    assert type(caught.value).__name__ == "TaskDeferred", caught.value
    return caught.value.trigger  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", ["ours"])
@pytest.mark.parametrize("way", [*WAYS, "profile", "native_password", "native_uri"])
def test_secret_comes_out_of_no_task(
    ways: Ways,
    lab: Lab,
    make_role: Callable[[str], None],
    define: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    way: str,
) -> None:
    lab.synced(days=8)
    where = conninfo_to_dict(lab.conninfo)
    ways.native = {"host": where["host"], "login": ways.plane.client_id, "schema": where["dbname"]}
    ways.native["extra"] = {"sslmode": "disable"}
    ways.profiles = tmp_path / "databrickscfg"
    ways.define = lambda uri="", conn_id="lakebase_default", **fields: define(
        uri, conn_id, **{"schema": where["dbname"], **fields}
    )
    if not way.startswith("native"):
        let_somebody_in(ways, way, make_role)
    role = ways.plane.user_name or ways.plane.client_id
    lab.conn.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(sql.Identifier(role)))
    caplog.set_level(logging.DEBUG)
    getattr(ways, way)(TOKEN)
    operator = LakeTSPartitionOperator(task_id="partition", tables=["metrics"])
    sensor = LakeTSDurabilitySensor(task_id="wait", table="metrics", deferrable=True)

    # The part of Airflow's context that these need outside of Airflow.
    pushed: dict[str, Any] = {}
    push = SimpleNamespace(
        task_id="wait",
        map_index=-1,
        try_number=1,
        xcom_push=lambda key, value: pushed.update({key: value}),
        xcom_pull=lambda task_ids, key, map_indexes: pushed[key],
    )
    context: Any = {"ti": push, "outlet_events": {}}

    xcom = operator.execute(context)
    trigger = deferred(sensor, context)
    sessions: list[Any] = []
    with LakebaseHook().get_conn() as conn:
        # Not the session in which the test sets the passwords.
        sessions += conn.execute(
            "SELECT s::text FROM pg_stat_activity AS s WHERE s.usename = current_user"
        ).fetchall()
    processes = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    told = [CliRunner().invoke(app, [command]).output for command in ("doctor", "status")]
    rendered = [[getattr(task, name) for name in task.template_fields] for task in (operator, sensor)]

    shown = [
        xcom,
        pushed,
        BaseSerialization.serialize(trigger.serialize()),
        vars(trigger),
        rendered,
        told,
        processes,
    ]
    shown += [sessions, caplog.text, capfd.readouterr()]
    secrets = [TOKEN, *ways.plane.minted, *(ways.plane.tokens - {TOKEN})]
    assert "public.metrics" in repr(xcom)
    assert [secret for secret in secrets if secret in repr(shown)] == []
