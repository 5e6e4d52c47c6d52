"""With an old SQLAlchemy, PostgresHook would use psycopg 2; this hook uses psycopg 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from airflow_provider_lakets import driver
from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.hooks.lakebase import LakebaseHook

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def native(define: Callable[..., None], empty_database: str) -> Callable[..., LakebaseHook]:
    """Return a factory of hooks that log in as a superuser, each to its own database."""
    from psycopg.conninfo import conninfo_to_dict

    where = conninfo_to_dict(empty_database)

    def make(**extra: Any) -> LakebaseHook:
        define(host=where["host"], schema=where["dbname"], login="postgres", password="unused", extra=extra)
        return LakebaseHook()

    return make


@pytest.fixture
def sky(native: Callable[..., LakebaseHook]) -> LakebaseHook:
    """Return a hook on a database with a table to fill."""
    hook = native()
    hook.run("CREATE TABLE sky (day int PRIMARY KEY, look text, notes jsonb)", autocommit=True)
    return hook


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [("dictcursor", {"one": 1}), ("DictCursor", {"one": 1}), ("namedtuplecursor", (1,))],
)
def test_rows_come_in_the_form_of_the_extra(
    native: Callable[..., LakebaseHook], cursor: str, expected: object
) -> None:
    assert native(cursor=cursor).get_first("SELECT 1 AS one") == expected


@pytest.mark.parametrize("cursor", ["realdictcursor", "servercursor"])
def test_unknown_cursor_is_refused_with_the_known_ones(
    native: Callable[..., LakebaseHook], cursor: str
) -> None:
    with pytest.raises(
        ValueError, match=f"'lakebase_default'.* no cursor '{cursor}'.* dictcursor, namedtuple"
    ):
        native(cursor=cursor).get_conn()


def test_bulk_load_and_bulk_dump_copy_a_file_in_and_out(sky: LakebaseHook, tmp_path: Path) -> None:
    (tmp_path / "in.tsv").write_text("1\tsunny\t\\N\n2\train\t\\N\n")

    sky.bulk_load("sky", str(tmp_path / "in.tsv"))
    sky.bulk_dump("sky", str(tmp_path / "out.tsv"))

    assert sky.get_records("SELECT day, look FROM sky ORDER BY day") == [(1, "sunny"), (2, "rain")]
    assert (tmp_path / "out.tsv").read_text() == (tmp_path / "in.tsv").read_text()


def test_copy_from_a_file_that_is_missing_copies_nothing(sky: LakebaseHook, tmp_path: Path) -> None:
    sky.copy_expert("copy sky from  stdin", str(tmp_path / "none.tsv"))

    assert sky.get_first("SELECT count(*) FROM sky") == (0,)


@pytest.mark.parametrize("statement", ["COPY sky FROM STDIN", "COPY sky TO STDOUT"])
def test_copy_is_recorded_as_lineage_as_the_postgres_hook_does(
    sky: LakebaseHook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    recorded: list[dict[str, Any]] = []
    monkeypatch.setattr(driver, "send_sql_hook_lineage", lambda **what: recorded.append(what))

    sky.copy_expert(statement, str(tmp_path / "sky.tsv"))

    (one,) = recorded
    assert (one["context"], one["sql"]) == (sky, statement)


@pytest.mark.parametrize("way", ["executemany", "fast_executemany"])
def test_rows_are_inserted_many_at_once(sky: LakebaseHook, way: str) -> None:
    sky.insert_rows(
        "sky", [(1, "sunny", {"wind": 2}), (2, "rain", [1])], ["day", "look", "notes"], **{way: True}
    )

    found = sky.get_records("SELECT * FROM sky ORDER BY day")

    assert found == [(1, "sunny", {"wind": 2}), (2, "rain", [1])]


def test_rows_replace_those_with_the_same_key(sky: LakebaseHook) -> None:
    sky.insert_rows("sky", [(1, "sunny")], ["day", "look"])

    sky.insert_rows("sky", [(1, "rain")], ["day", "look"], replace=True, replace_index="day")

    assert sky.get_records("SELECT day, look FROM sky") == [(1, "rain")]


def test_messages_of_the_database_are_logged_once(
    native: Callable[..., LakebaseHook], capsys: pytest.CaptureFixture[str]
) -> None:
    hook = native()
    hook.enable_log_db_messages = True

    hook.run("DO $$ BEGIN RAISE NOTICE '%', 'clouds ' || 'come up'; END $$")

    assert capsys.readouterr().out.count("clouds come up") == 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda hook: hook.get_sqlalchemy_engine(),
        lambda hook: hook.sqlalchemy_url,
        lambda hook: hook.get_uri(),
        lambda hook: hook.get_df("SELECT 1"),
    ],
    ids=["engine", "url", "uri", "data frame"],
)
def test_sqlalchemy_1_is_refused_where_an_engine_is_asked_for(
    native: Callable[..., LakebaseHook],
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[LakebaseHook], object],
) -> None:
    monkeypatch.setattr(sqlalchemy, "__version__", "1.4.54")

    with pytest.raises(LakeTSError, match=r"needs SQLAlchemy 2\.0 or later.* 1\.4\.54 is installed"):
        ask(native())
