"""Versions of a program: a task does not wait for one that no program runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.dbos.enqueue import DBOSEnqueueOperator
from airflow_provider_lakets.dbos.hook import DBOSHook
from airflow_provider_lakets.dbos.operators import DBOSForkOperator
from airflow_provider_lakets.dbos.sessions import session_name
from airflow_provider_lakets.exceptions import DBOSWorkflowError
from tests.dbos.conftest import wait_until
from tests.dbos.tasks import Task, fails

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.dbos.conftest import App, Effects

pytestmark = pytest.mark.usefixtures("connection")

NOBODY_RUNS_THE_NEW = (
    "version '.*-new', which is the latest registered, but none is connected.* programs of: '.*-old'"
)


@pytest.fixture
def hook(connection: str, own_app: App) -> Iterator[DBOSHook]:
    hook = DBOSHook(connection, dbos_schema=own_app.schema)
    yield hook
    hook.close()


def task(app: App, name: str, **arguments: Any) -> Task:
    usual = {"workflow_name": "job", "queue_name": "orders", "workflow_kwargs": {"name": name}}
    return Task(
        DBOSEnqueueOperator, **{**usual, "dbos_schema": app.schema, "poll_interval": 0.2, **arguments}
    )


@pytest.fixture
def old(own_app: App) -> str:
    """Return a version that no other program in the database uses."""
    return f"{own_app.schema}-old"


@pytest.fixture
def new(own_app: App) -> str:
    return f"{own_app.schema}-new"


def end(app: App, admin: psycopg.Connection, version: str) -> None:
    """Kill a program, and return once the server has noticed."""
    app.kill()
    query = "SELECT FROM pg_stat_activity WHERE application_name = %s"
    wait_until(lambda: not admin.execute(query, [session_name(version)]).fetchall(), f"{version} has gone")


def test_the_latest_version_is_not_waited_for_when_only_an_older_one_runs(
    own_app: App, admin: psycopg.Connection, hook: DBOSHook, name: str, old: str, new: str
) -> None:
    own_app.start(version=old)
    end(own_app, admin, old)
    own_app.start(version=new)  # such as a test run on a laptop
    end(own_app, admin, new)
    one, many = task(own_app, name), task(own_app, name, workflow_kwargs={}, items=[name])

    attempt = one.begin()  # nothing runs yet: it may wait
    own_app.start(version=old)

    with fails(DBOSWorkflowError, NOBODY_RUNS_THE_NEW):
        one.run()
    with fails(DBOSWorkflowError, NOBODY_RUNS_THE_NEW):
        many.run()
    assert task(own_app, name, app_version=old).run()["sum"] == 60
    hook.client.set_latest_application_version(old)
    assert many.run()[0]["sum"] == attempt.end()["sum"] == 60


def test_what_begins_again_does_so_with_a_version_that_runs(
    own_app: App, admin: psycopg.Connection, hook: DBOSHook, name: str, old: str, new: str
) -> None:
    own_app.start(version=old)
    rewound = task(own_app, name, on_terminal="rewind", from_step=3)
    rewound.run()
    end(own_app, admin, old)
    own_app.start(version=new)

    with fails(DBOSWorkflowError, r"version '.*-old', which it has begun with.* of: '.*-new'"):
        rewound.run()
    rewound.arguments["app_version"] = new
    assert rewound.run()["sum"] == 60
    (workflow,) = hook.client.list_workflows(status="SUCCESS", load_output=False)
    assert workflow.app_version == new

    end(own_app, admin, new)
    own_app.start(version=old)
    fork: dict[str, Any] = {"workflow_id": workflow.workflow_id, "dbos_schema": own_app.schema}
    with fails(DBOSWorkflowError, NOBODY_RUNS_THE_NEW):
        Task(DBOSForkOperator, **fork).run()
    (forked,) = Task(DBOSForkOperator, **fork, app_version=old).run()
    wait_until(lambda: hook.statuses([forked])[forked].status == "SUCCESS", "forked")


def test_what_has_begun_with_a_version_that_is_gone_is_not_waited_for(
    own_app: App, admin: psycopg.Connection, hook: DBOSHook, effects: Effects, name: str, old: str, new: str
) -> None:
    own_app.start(version=old)
    effects.shut(name, 2)
    waiting = task(own_app, name, end_timeout=1)
    attempt = waiting.begin()
    effects.wait_for(name, 2)
    end(own_app, admin, old)
    effects.open(name, 2)
    own_app.start(version=new)
    stuck = "has begun with version '.*-old'.*programs of: '.*-new'"

    with fails(DBOSWorkflowError, f"not ended in 0:00:01.*{stuck}"):
        attempt.end()
    with fails(DBOSWorkflowError, f"^DBOS workflow [^ ]+ is PENDING.*{stuck}"):  # at once
        waiting.run()
    assert effects.of(name) == [1, 2]


@pytest.mark.parametrize("version", ["1.0", "x" * 49, "x" * 50, "x" * 49 + "y", "é", "a\tb", "\n"])
def test_the_name_of_sessions_is_kept_by_the_server_as_it_is(admin: psycopg.Connection, version: str) -> None:
    admin.execute("SELECT set_config('application_name', %s, false)", [session_name(version)])

    assert admin.execute("SHOW application_name").fetchone() == (session_name(version),)


def test_versions_that_begin_alike_have_sessions_of_different_names() -> None:
    assert len({session_name("x" * 50 + end) for end in ("a", "b", "c")}) == 3
