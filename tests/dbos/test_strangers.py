"""Users who have read only docs/dbos.md: what they do works, or ends in one clear error."""

from __future__ import annotations

import json
import logging
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from psycopg import sql

from airflow_provider_lakets.dbos.hook import DBOSHook
from airflow_provider_lakets.dbos.operators import (
    DBOSCancelOperator,
    DBOSForkOperator,
    DBOSResumeOperator,
)
from airflow_provider_lakets.exceptions import DBOSSettingError, DBOSWorkflowError
from tests.dbos.conftest import wait_until
from tests.dbos.tasks import Task, fails, task

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from airflow_provider_lakets.local.client import LocalServer
    from tests.dbos.conftest import Effects

DOCUMENT = Path(__file__).parents[2] / "docs" / "dbos.md"
(RIGHTS,) = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)

pytestmark = pytest.mark.usefixtures("app", "connection")


# Names


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"workflow_name": "jbo"}, "no workflow 'jbo': .*No workflow 'jbo' has ended here.*'job'"),
        (
            {"workflow_name": "take_at", "class_name": "Til", "instance_name": "door"},
            "no workflow 'take_at' of class 'Til', instance 'door'",
        ),
    ],
    ids=["name", "class"],
)
def test_a_workflow_that_the_program_does_not_have_is_told_at_the_end_of_the_wait(
    name: str, wrong: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture, hook: DBOSHook
) -> None:
    task(name).run()

    with caplog.at_level(logging.WARNING):
        one = task(name, **wrong, wait=False)
        workflow = one.run()
        wait_until(lambda: hook.statuses([workflow])[workflow].status == "PENDING", "taken from its queue")
        one.arguments |= {"wait": True, "end_timeout": 1}
        with fails(DBOSWorkflowError, f"is PENDING.*not finished a step yet.*{words}"):
            one.run()
    assert f"No workflow '{wrong['workflow_name']}' has ended here recently" in caplog.text


def test_a_name_that_has_run_is_not_warned_of(name: str, caplog: pytest.LogCaptureFixture) -> None:
    task(name).run()

    with caplog.at_level(logging.WARNING):
        task(name).run()

    assert "has ended here recently" not in caplog.text


@pytest.mark.parametrize(
    "workflow_id", ["order #7", "#1", 'o\'brien "é" % _ \\ {x} ☃', "a/b#3/c"], ids=["7", "1", "odd", "path"]
)
def test_an_id_may_be_any_text_and_each_new_one_follows_it(
    hook: DBOSHook, name: str, workflow_id: str
) -> None:
    workflow_id = f"{name} {workflow_id}"
    one = task(name, workflow_id=workflow_id, on_terminal="new")
    for _ in range(3):
        one.run()

    expected = [workflow_id, f"{workflow_id}#2", f"{workflow_id}#3"]
    assert sorted(hook.statuses([*expected, f"{workflow_id}#4"])) == expected


# Results and errors


def test_a_result_that_json_cannot_hold_fails_with_its_class(name: str) -> None:
    with fails(AirflowFailException, "TypeError: Object of type Receipt is not portable"):
        task(name, workflow_name="return_object").run()


@pytest.mark.parametrize(
    ("workflow", "words"),
    [("return_object", "The result of .* cannot be unpickled"), ("raise_odd", "failed.*cannot be unpickled")],
    ids=["result", "error"],
)
def test_what_cannot_be_unpickled_is_told_and_not_returned_as_a_text(
    name: str, workflow: str, words: str
) -> None:
    with fails(AirflowFailException, words):
        task(name, workflow_name=workflow, serialization="native").run()


@pytest.mark.parametrize("text", [float("nan"), {"a": [1, float("-inf")]}, 2**64], ids=str)
def test_a_number_that_airflow_cannot_pass_on_is_told(name: str, text: object) -> None:
    with fails(AirflowFailException, "contains (nan|-inf|184467.*), which Airflow cannot pass on"):
        task(name, workflow_name="echo", workflow_kwargs={"text": text}).run()


def test_a_text_that_was_pickled_is_a_result(name: str) -> None:
    echo = task(name, workflow_name="echo", workflow_kwargs={"text": "gASV"}, serialization="native")

    assert echo.run() == "gASV"


def test_a_result_of_megabytes_is_returned_whole(name: str) -> None:
    much = task(name, workflow_name="return_much", workflow_kwargs={"name": name, "size": 5_000_000})

    assert much.run() == {"text": "x" * 5_000_000}


# Places


def lead_to(lake: LocalServer, monkeypatch: pytest.MonkeyPatch, **other: Any) -> None:
    """Change the target of the connection."""
    usual = {
        "conn_type": "lakebase",
        "host": "127.0.0.1",
        "port": lake.state.port,
        "login": lake.state.owner.client_id,
        "schema": "databricks_postgres",
        "extra": {"sslmode": "require"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", json.dumps({**usual, **other}))


def test_a_database_that_is_not_there_is_named(
    name: str, lake: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead_to(lake, monkeypatch, schema="nowhere")

    with fails(AirflowFailException, 'database "nowhere" does not exist.*Correct the schema'):
        task(name).run()


def test_a_database_without_a_program_is_told(
    name: str, lake: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead_to(lake, monkeypatch, schema="postgres")

    with fails(AirflowFailException, "database 'postgres'.*There are none in this database"):
        task(name).run()


def test_system_tables_of_another_dbos_are_told(name: str, admin: psycopg.Connection) -> None:
    admin.execute("CREATE SCHEMA ancient; GRANT USAGE ON SCHEMA ancient TO PUBLIC")
    admin.execute("CREATE TABLE ancient.workflow_status (workflow_uuid text)")
    try:
        with fails(AirflowFailException, f"'ancient' are not those of DBOS {metadata.version('dbos')}"):
            task(name, dbos_schema="ancient").run()
    finally:
        admin.execute("DROP SCHEMA ancient CASCADE")


@pytest.fixture
def role(
    lake: LocalServer, native_url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Yield the role of the connection, which has no rights."""
    role = native_url.partition("//")[2].partition(":")[0]
    lead_to(lake, monkeypatch, login=role, password="p@ss/word")
    yield role
    admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))


def test_a_role_without_rights_is_told_which_one_it_lacks(name: str, role: str) -> None:
    with fails(AirflowFailException, "role of this connection lacks a right .*schema dbos"):
        task(name).run()


def test_the_documented_rights_are_enough(
    name: str, role: str, admin: psycopg.Connection, effects: Effects
) -> None:
    admin.execute(RIGHTS.replace("<role>", role).encode())
    effects.break_(name, 2)
    one = task(name, on_terminal="rewind")
    with fails(DBOSWorkflowError, "step 2"):
        one.run()
    effects.mend(name, 2)
    one.run()
    effects.shut(f"{name}-stopped", 1)
    stopped = task(f"{name}-stopped", wait=False).run()
    effects.wait_for(f"{name}-stopped", 1)

    assert Task(DBOSCancelOperator, workflow_id=stopped).run() == [stopped]
    effects.open(f"{name}-stopped", 1)
    assert Task(DBOSResumeOperator, workflow_id=stopped).run() == [stopped]
    assert len(Task(DBOSForkOperator, workflow_id=stopped).run()) == 1


# Versions of DBOS


def pretend(monkeypatch: pytest.MonkeyPatch, installed: str | None) -> None:
    """Pretend that another version of DBOS is installed, or none."""
    find = metadata.version

    def version(package: str) -> str:
        if package != "dbos":
            return find(package)
        if installed is None:
            raise metadata.PackageNotFoundError(package)
        return installed

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.parametrize(
    ("version", "words"),
    [("2.31.0", "2.31.0 is installed"), ("3.2.9", "3.2.9 is installed"), ("3", "3 is installed")],
)
def test_a_dbos_that_is_too_old_is_told_for_good(
    name: str, monkeypatch: pytest.MonkeyPatch, version: str, words: str
) -> None:
    pretend(monkeypatch, version)

    with fails(AirflowFailException, rf"needs dbos 3.3 or later; {words}.*pip install"):
        task(name).run()


def test_a_dbos_that_is_not_installed_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, None)

    with pytest.raises(DBOSSettingError, match=r"it is not installed.*pip install"):
        _ = DBOSHook().client


@pytest.mark.parametrize("version", ["3.3.0rc1", "3.10", "4.0.dev2"])
def test_any_later_dbos_is_taken(hook: DBOSHook, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    pretend(monkeypatch, version)

    assert hook.client is not None
