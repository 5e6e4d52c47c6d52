"""Names, durations and TLS modes, which need no server."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_lakets.exceptions import LakebaseCredentialError
from airflow_provider_lakets.login.address import is_local, workspace_url
from airflow_provider_lakets.login.settings import application_name, server_settings
from airflow_provider_lakets.login.tls import forbid_clear_text


def task(dag: str, task: str, run: str) -> dict[str, str]:
    return {"AIRFLOW_CTX_DAG_ID": dag, "AIRFLOW_CTX_TASK_ID": task, "AIRFLOW_CTX_DAG_RUN_ID": run}


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "airflow-provider-lakets"),
        (task("etl", "load", "manual__1"), "etl/load/manual__1"),
        (task("météo", "load", "1"), "m?t?o/load/1"),
        (
            task("lakets_rollup_refresh", "refresh", "scheduled__2026-01-01T00:00:00+00:00"),
            "lakets_rollup_refresh/refresh/scheduled__2026-~1T00:00:00+00:00",
        ),
        (
            task("d" * 100, "t" * 100, "scheduled__2026-01-01T00:00:00+00:00"),
            "ddddddddd~dddddddddd/ttttttttt~tttttttttt/scheduled_~0:00+00:00",
        ),
    ],
    ids=["no task", "short", "not ASCII", "long run", "all long"],
)
def test_application_name_keeps_something_of_dag_task_and_run(environ: dict[str, str], name: str) -> None:
    found = application_name(environ)

    assert found == name
    assert len(found.encode()) <= 63


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (timedelta(minutes=1, milliseconds=5), "-c lock_timeout=60005ms"),
        ("15 min", "-c lock_timeout=15min"),
        ("0", "-c lock_timeout=0"),
        (None, ""),
    ],
)
def test_durations_become_server_options(value: timedelta | str | None, options: str) -> None:
    assert server_settings(lock_timeout=value) == options


@pytest.mark.parametrize("value", ["", "soon", "1s; -c x=y", "-5s", "1 fortnight"])
def test_text_that_is_no_duration_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="give a timedelta"):
        server_settings(lock_timeout=value)


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
@pytest.mark.parametrize(
    "where",
    [
        {"host": "ep-x.database.example.com"},
        {"host": "10.0.0.7"},
        {"host": "localhost,ep-x.database.example.com"},
        {"host": "localhost", "hostaddr": "10.0.0.7"},
        {"host": "localhost.example.com"},
    ],
    ids=lambda where: "+".join(where.values()),
)
def test_credential_is_not_sent_in_clear_text_over_a_network(where: dict[str, str], mode: str) -> None:
    with pytest.raises(LakebaseCredentialError, match=f"asks for sslmode '{mode}'.*clear text"):
        forbid_clear_text({**where, "sslmode": mode}, conn_label="Connection 'lakebase_default'")


@pytest.mark.parametrize(
    "host", ["/run/postgresql", "@abstract", "localhost", "127.0.0.1", "127.9.9.9", "::1"]
)
def test_clear_text_is_obeyed_where_nothing_leaves_the_machine(host: str) -> None:
    forbid_clear_text({"host": host, "sslmode": "disable"}, conn_label="Connection 'lakebase_default'")

    assert is_local(host)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("workspace.example.com", "https://workspace.example.com"),
        ("https://workspace.example.com/", "https://workspace.example.com"),
        ("https://workspace.example.com:8443", "https://workspace.example.com:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_workspace_is_addressed_over_tls_or_on_this_machine(host: str, url: str) -> None:
    assert workspace_url(host, "Connection 'lakebase_default'") == url
