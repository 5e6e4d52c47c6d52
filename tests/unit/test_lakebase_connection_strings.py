"""Each form of a connection is read correctly, or refused without being repeated."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lakets.exceptions import LakebaseSettingError, LakeTSError
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from airflow_provider_lakets.login.fields import Fields, read
from airflow_provider_lakets.login.pasted import pasted_connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.control_plane import ControlPlane

STRING = "postgresql://me%40example.com@ep-x.example.com/weather?sslmode=require"
PRIMARY = "projects/weather/branches/production/endpoints/primary"


def fields(extra: Any = None, **others: Any) -> Fields:
    text = extra if isinstance(extra, str) else json.dumps(extra or {})
    connection = Connection(conn_id="lakebase_default", conn_type="lakebase", extra=text, **others)
    return read(connection, LakebaseHook.ignored_extra_options)


def refused(extra: Any = None, **others: Any) -> str:
    with pytest.raises(LakebaseSettingError) as caught:
        fields(extra, **others)
    assert str(caught.value).isprintable()
    return str(caught.value)


def as_read(found: Fields) -> tuple[Any, ...]:
    return found.host, found.port, found.role, found.database, dict(found.settings)


@pytest.mark.parametrize(
    "found",
    [
        lambda: fields({"connection_string": f" {STRING}\n"}),
        lambda: fields(host=STRING),
        lambda: read(pasted_connection(STRING, "--uri"), ()),
        lambda: read(pasted_connection(STRING.replace("postgresql", "lakebase"), "--uri"), ()),
        lambda: fields({"connection_string": STRING, "sslmode": "require"}, schema="weather"),
        lambda: fields(
            {"user": "me@example.com", "dbname": "weather", "sslmode": "require"}, host="ep-x.example.com"
        ),
    ],
    ids=["form", "host field", "command line", "lakebase://", "said twice", "libpq's names"],
)
def test_console_string_is_read_wherever_it_is_pasted(found: Callable[[], Fields]) -> None:
    settings = {"sslmode": "require"}
    assert as_read(found()) == ("ep-x.example.com", None, "me@example.com", "weather", settings)


@pytest.mark.parametrize(
    "string",
    [
        "",
        "  ",
        "'postgresql://user:hunter2@h/db'",
        "psql 'postgresql://user:hunter2@h/db'",
        "host=h user=u password=hunter2 dbname=db",
        "postgresql:/user:hunter2@h/db",
        "postgresql://user:hunter2/x@h/db",
        "postgresql://user:hunter2:x@h:hunter2/db",
        "postgresql://user:4711/hunter2@h/db",
        "postgresql://user:hunter2#x@h/db",
        "postgresql://user:4711#hunter2@h/db",
        "postgresql://user:4711?hunter2@h/db",
        "postgresql://user:hunter2?x@h/db",
        "postgresql://user:hunter2@[h/db",
        "postgresql://user:hunter2@h]/db",
        "postgresql://user:hunter2@h:port/db",
        "postgresql://user:hunter2@h/db?sslmode",
        "postgresql://user:hunter2@h/db?sslmode=require&sslmode=disable",
        "postgresql://user:hunter2@h/db\x1b[31m",
        "postgresql://user:hunter2@ho\u2100st/db",
        "postgresql://user:hunter2%ff@h/db",
        "mysql://user:hunter2@h/db",
    ],
)
def test_string_that_is_none_is_refused_without_a_part_of_it(string: str) -> None:
    with pytest.raises(LakeTSError) as caught:
        read(pasted_connection(string, "--uri"), ())

    message = str(caught.value)
    assert "hunter2" not in message
    assert "4711" not in message
    assert message.startswith("--uri ")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("head", ["", "postgresql://", "postgresql://u:sentinel-", "lakebase://h/db?"])
@given(text=st.text(max_size=60))
def test_any_text_is_a_string_or_an_error_of_ours(head: str, text: str) -> None:
    said = ""
    try:
        read(pasted_connection(f"{head}{text}@h/db", "--uri"), ())
    except LakeTSError as err:
        said = str(err)

    assert "sentinel" not in said
    assert said == "" or said.isprintable()


@pytest.mark.parametrize(
    ("host", "found"),
    [
        (" ep-x.example.com ", "ep-x.example.com"),
        ("https://ep-x.example.com/", "ep-x.example.com"),
        ("ep-x.example.com/", "ep-x.example.com"),
        ("/run/postgresql", "/run/postgresql"),
        ("/run/postgresql/", "/run/postgresql"),
        ("10.0.0.7,::1", "10.0.0.7,::1"),
    ],
)
def test_host_is_read_as_people_write_it(host: str, found: str) -> None:
    assert fields(host=host).host == found


@pytest.mark.parametrize(
    "host",
    [
        "https://user:PASS@host",
        "user:PASS@host",
        "ep-x:5432",
        "ep x",
        "javascript:alert(1)",
        "ep-x\x1b[31m",
        "https://",
        "ftp://host",
        "host/path",
        "x" * 64,
        "a..b",
        "host?sslmode=disable",
    ],
)
def test_host_that_is_none_is_refused(host: str) -> None:
    message = refused(host=host)

    assert "host" in message
    assert "PASS" not in message


@pytest.mark.parametrize(
    "extra", ['["project", "weather"]', '"weather"', "7", "{", "true", "project=weather"]
)
def test_extra_that_is_no_object_is_refused_rather_than_left_out(extra: str) -> None:
    assert "is not a JSON object" in refused(extra)


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ({"sslmod": "require"}, "Did you mean sslmode?"),
        ({"Project": "weather"}, "Did you mean project?"),
        ({"conection_string": STRING}, "Did you mean connection_string?"),
        ({"conninfo": "host=x"}, "sets conninfo"),
        ({"service": "x"}, "sets service"),
        ({"password": "hunter2"}, "field Password"),
        ({"iam": True}, "asks for iam"),
        ({"iam": "true"}, "asks for iam"),
        ({"keepalives": [1]}, "Give a text or a whole number"),
        ({"project": {"name": "x"}}, "project is not text"),
        ({"project": "a\nb"}, "control characters"),
        ({"port": 0}, "from 1 to 65535"),
        ({"connection_string": "postgresql://u:hunter2@h/db"}, "contains a password"),
        ({"connection_string": 7}, "is not a connection string"),
    ],
)
def test_setting_that_nothing_can_obey_is_refused_with_what_to_do(extra: dict[str, Any], word: str) -> None:
    message = refused(extra)

    assert word in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("extra", "others", "name"),
    [
        ({"connection_string": STRING}, {"host": "ep-y.example.com"}, "host"),
        ({"connection_string": STRING}, {"login": "you@example.com"}, "login"),
        ({"connection_string": STRING}, {"schema": "other"}, "schema"),
        ({"connection_string": STRING, "sslmode": "verify-full"}, {}, "sslmode"),
        ({"host": "ep-y.example.com"}, {"host": "ep-x.example.com"}, "host"),
        ({"port": 1}, {"port": 2}, "port"),
    ],
)
def test_connection_that_contradicts_itself_is_refused(
    extra: dict[str, Any], others: dict[str, Any], name: str
) -> None:
    assert f"contradicts itself: its {name} is" in refused(extra, **others)


@pytest.mark.parametrize("off", [False, None, "", "false", 0])
def test_a_login_by_aws_that_is_not_asked_for_is_none(off: object) -> None:
    assert fields({"iam": off}).settings == {}


@pytest.mark.parametrize("where", ["form", "uri"])
def test_pasted_string_logs_in(
    principal: ControlPlane, define: Callable[..., None], postgres: EmbeddedPostgres, where: str
) -> None:
    from urllib.parse import quote

    string = (
        f"postgresql://{principal.client_id}@{quote(postgres.socket_dir, safe='')}/postgres?sslmode=disable"
    )
    if where == "form":
        define(schema=None, extra={"connection_string": string})
    else:
        define(string.replace("postgresql", "lakebase"))

    with LakebaseHook().get_conn() as conn:
        assert conn.execute("SELECT current_user").fetchone() == (principal.client_id,)
    assert principal.minted_for == [PRIMARY]
