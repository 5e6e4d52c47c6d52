"""Arguments of the hook and of its engines: they are used, or refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from sqlalchemy import text

from airflow_provider_lakets.exceptions import LakebaseSettingError
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from airflow_provider_lakets.hooks.lakets import LakeTSHook
from tests.needs import SQLALCHEMY_2

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres


def native(define: Callable[..., None], postgres: EmbeddedPostgres, **extra: Any) -> None:
    define(host=postgres.socket_dir, login="postgres", password="unused", extra=extra)


@pytest.mark.parametrize("hook", [LakebaseHook, LakeTSHook])
@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"postgres_conn_id": "x"}, "lakebase_conn_id"),
        ({"conn_id": "x"}, "lakebase_conn_id"),
        ({"lakets_conn_id": "x"}, "lakebase_conn_id"),
        ({"statment_timeout": "5s"}, "Did you mean statement_timeout"),
        ({"enable_log_messages": True}, "Did you mean enable_log_db_messages"),
        ({"zzz": 1}, "It takes "),
    ],
)
def test_argument_that_would_be_ignored_is_refused_by_name(
    hook: type[LakebaseHook], arguments: dict[str, Any], right: str
) -> None:
    with pytest.raises(TypeError, match=f"{hook.__name__} takes no {next(iter(arguments))}.*{right}"):
        hook(**arguments)


@pytest.mark.parametrize("conn_id", [None, "", " ", 7])
def test_connection_id_that_names_nothing_is_refused(conn_id: Any) -> None:
    with pytest.raises(ValueError, match="lakebase_conn_id is "):
        LakebaseHook(lakebase_conn_id=conn_id)
    with pytest.raises(ValueError, match="lakebase_conn_id is "):
        LakebaseHook(conn_id)


@pytest.mark.parametrize(("args", "kwargs"), [(("a", "b"), {}), (("a",), {"lakebase_conn_id": "b"})])
def test_two_connection_ids_are_refused(args: tuple[str, ...], kwargs: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="takes one positional argument"):
        LakebaseHook(*args, **kwargs)


def test_setting_of_a_connection_is_no_argument_of_the_hook(
    define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    native(define, postgres)

    with pytest.raises(TypeError, match="LakebaseHook takes no branch; it is a setting of the connection"):
        LakebaseHook(branch="dev")


def test_sql_operator_may_pass_the_extra_on(define: Callable[..., None], postgres: EmbeddedPostgres) -> None:
    native(define, postgres, sslmode="disable", connect_timeout=5, cursor="dictcursor", branch="")
    operator = SQLExecuteQueryOperator(task_id="ask", conn_id="lakebase_default", sql="SELECT 1 AS one")

    assert operator.execute({}) == [{"one": 1}]  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("name", ["database", "schema"])
def test_database_of_the_hook_wins_over_the_connections(
    define: Callable[..., None], postgres: EmbeddedPostgres, name: str
) -> None:
    define(host=postgres.socket_dir, login="postgres", password="unused", schema="gone")

    assert LakebaseHook(**{name: "postgres"}).get_first("SELECT current_database()") == ("postgres",)


@SQLALCHEMY_2
def test_engine_obeys_connect_args_and_the_extras_query(
    define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    query = {"application_name": "of the extra", "options": "-c work_mem=5MB"}
    native(define, postgres, sqlalchemy_query=query)
    hook = LakebaseHook(lock_timeout="3s")
    settings = text("SELECT current_setting('application_name'), current_setting('work_mem')")

    def ask(**connect_args: Any) -> tuple[Any, ...]:
        engine = hook.get_sqlalchemy_engine({"connect_args": connect_args})
        with engine.connect() as conn:
            row = conn.execute(settings).one()
            limit = conn.execute(text("SHOW lock_timeout")).scalar_one()
        engine.dispose()
        return (*row, limit)

    assert ask() == ("of the extra", "5MB", "3s")
    assert ask(application_name="of the engine") == ("of the engine", "5MB", "3s")
    assert ask(options="-c work_mem=6MB", prepare_threshold=None) == ("of the extra", "6MB", "3s")


@SQLALCHEMY_2
@pytest.mark.parametrize(
    ("connect_args", "word"),
    [
        ({"host": "x"}, "was given host"),
        ({"password": "hunter2"}, "was given password"),
        ({"hostaddr": "10.0.0.7", "user": "x"}, "was given hostaddr, user"),
        ({"sslmod": "x"}, "Did you mean sslmode"),
        ({"conninfo": "host=x"}, "sets conninfo"),
        ({"service": "x"}, "sets service"),
    ],
)
def test_engine_does_not_log_in_elsewhere(
    define: Callable[..., None], postgres: EmbeddedPostgres, connect_args: dict[str, str], word: str
) -> None:
    native(define, postgres)

    with pytest.raises(ValueError, match=word) as caught:
        LakebaseHook().get_sqlalchemy_engine({"connect_args": connect_args})
    assert "hunter2" not in str(caught.value)


@SQLALCHEMY_2
@pytest.mark.parametrize(
    "query", [["x"], "x=y", {"options": 1}, {"options": ["x"]}, {"host": "x"}, {"typo": "x"}]
)
def test_query_for_engines_that_is_mistyped_is_refused(
    define: Callable[..., None], postgres: EmbeddedPostgres, query: Any
) -> None:
    native(define, postgres, sqlalchemy_query=query)

    with pytest.raises(ValueError, match=r"sqlalchemy_query|engine"):
        LakebaseHook().get_sqlalchemy_engine()


@SQLALCHEMY_2
@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgresql+psycopg2", "postgresql+asyncpg", "mysql", "x://y"]
)
def test_driver_that_cannot_mint_is_refused(
    define: Callable[..., None], postgres: EmbeddedPostgres, scheme: str
) -> None:
    native(define, postgres)
    with pytest.raises(ValueError, match=r"sqlalchemy_scheme is .*'postgresql\+psycopg', the default"):
        LakebaseHook(sqlalchemy_scheme=scheme).get_uri()

    native(define, postgres, sqlalchemy_scheme=scheme)
    with pytest.raises(LakebaseSettingError, match="sqlalchemy_scheme is "):
        LakebaseHook().get_sqlalchemy_engine()


def test_login_by_aws_is_refused(define: Callable[..., None], postgres: EmbeddedPostgres) -> None:
    native(define, postgres, iam=True)

    with pytest.raises(ValueError, match=r"asks for iam.*the login is OAuth"):
        LakebaseHook().get_conn()


def test_cursor_that_psycopg_lacks_is_refused(
    define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    native(define, postgres, cursor="realdictcursor")

    with pytest.raises(LakebaseSettingError, match="there is no cursor 'realdictcursor'"):
        LakebaseHook().get_conn()
