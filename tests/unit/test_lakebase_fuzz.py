"""Any connection and any response of a workspace: only our errors, and no secret in them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import requests
from airflow.sdk import Connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from airflow_provider_lakets.login.fields import libpq_names
from airflow_provider_lakets.login.login import Login
from airflow_provider_lakets.login.pasted import pasted_connection
from airflow_provider_lakets.login.place import PLACE

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "sentinel-5ecret"
ENVIRONMENT = {
    "DATABRICKS_HOST": "https://my.cloud.databricks.com",
    "DATABRICKS_CLIENT_ID": "client",
    "DATABRICKS_CLIENT_SECRET": SECRET,
}

names = st.sampled_from([*PLACE, *sorted(libpq_names()), "connection_string", "iam", "cursor"]) | st.text()
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(SECRET)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4
)
extras = st.dictionaries(names, values, max_size=4) | values
hosts = st.none() | st.text() | st.sampled_from(["ep-x.example.com", f"https://me:{SECRET}@h", "localhost"])
answers = st.fixed_dictionaries(
    {},
    optional={
        "access_token": values,
        "expires_in": values,
        "token": values,
        "name": values,
        "status": st.dictionaries(st.sampled_from(["default_branch", "hosts", "endpoint_type"]), values),
        "branches": values,
        "endpoints": values,
        "projects": values,
        "database_instances": values,
        "next_page_token": values,
        "userName": values,
        "error_code": values,
        "message": values,
    },
)


def outcome(act: Callable[[], Any]) -> str:
    """Return the message of our error; any other error fails the test."""
    try:
        act()
    except LakeTSError as err:
        assert str(err).isprintable()  # noqa: PT017 - that there is an error is not what is tested
        return f"{err!r} {err.__cause__!r} {err.__context__!r}"
    return ""


def from_a_connection(extra: Any, host: Any, port: Any, role: Any) -> None:
    connection = Connection(
        conn_id="fuzzed",
        conn_type="lakebase",
        host=host,
        port=port,
        login=role,
        password=SECRET,
        extra=json.dumps(extra),
    )
    with mock.patch.dict(os.environ, ENVIRONMENT, clear=True):
        said = outcome(lambda: Login(connection, ignored=LakebaseHook.ignored_extra_options).fresh())

    if SECRET not in json.dumps([extra, port, role]):  # values that are not secrets may be repeated
        assert SECRET not in said


def from_a_string(head: str, text: str) -> None:
    said = outcome(lambda: Login(pasted_connection(f"{head}{text}", "--uri")).arguments())

    assert SECRET not in said


def from_a_workspace(bodies: list[Any], statuses: list[int]) -> None:
    left = [*zip(bodies, statuses, strict=False)]

    def request(*_: Any, **options: Any) -> requests.Response:
        body, status = left.pop() if left else ({}, 404)
        answer = requests.Response()
        answer.status_code = status
        answer._content = json.dumps(body).encode()
        return answer

    connection = Connection(conn_id="fuzzed", conn_type="lakebase", extra='{"project": "weather"}')
    with (
        mock.patch.dict(os.environ, ENVIRONMENT, clear=True),
        mock.patch.object(requests.Session, "request", request),
    ):
        said = outcome(lambda: Login(connection).fresh())

    assert SECRET not in said


strings = given(
    head=st.sampled_from(["", "postgresql://", f"postgresql://me:{SECRET}", f"lakebase://me:{SECRET}@h/db?"]),
    text=st.text(st.characters() | st.sampled_from("@/:?#%[]=&' "), max_size=40),
)
connections = given(extra=extras, host=hosts, port=st.none() | st.integers(), role=st.none() | st.text())
workspaces = given(
    bodies=st.lists(answers | values, max_size=8),
    statuses=st.lists(st.sampled_from([200, 200, 200, 302, 400, 401, 403, 404]), min_size=8, max_size=8),
)
short = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
long = settings(short, max_examples=10_000)

test_any_connection = short(connections(from_a_connection))
test_any_string = short(strings(from_a_string))
test_any_workspace = short(workspaces(from_a_workspace))

test_any_of_many_connections = pytest.mark.slow(long(connections(from_a_connection)))
test_any_of_many_strings = pytest.mark.slow(long(strings(from_a_string)))
test_any_of_many_workspaces = pytest.mark.slow(long(workspaces(from_a_workspace)))
