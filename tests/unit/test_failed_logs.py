"""The log of a failed task, as Airflow shows it: the request, the finding and the advice, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import structlog

from airflow_provider_lakets import exceptions
from airflow_provider_lakets.dbos.operators import DBOSCancelOperator
from airflow_provider_lakets.exceptions import LakeTSError, wrapped
from airflow_provider_lakets.hooks.lakets import LakeTSHook
from airflow_provider_lakets.operators.install import LakeTSInstallOperator

if TYPE_CHECKING:
    from collections.abc import Callable

SCREEN = 40  # lines
WIDE = 100
LONG = "schema_with_thirty_characters_.table_with_thirty_characters__"

# One for each class, as they are raised; the first words say what was asked, the last what to do.
MESSAGES = {
    "LakeTSError": "DBOSHook needs dbos 3.3 or later; it is not installed. Run: pip install "
    "'airflow-provider-lakets[dbos]'",
    "LakebaseSettingError": "Connection 'lakebase_default': its host 'ep x' is not a host name. Give the "
    "name alone, as in ep-cool-lake.database.us-west-2.cloud.databricks.com: port, role and password have "
    "separate fields. A whole connection string begins with postgresql://.",
    "LakebaseResolutionError": "Connection 'lakebase_default': project 'wether' was asked for. There are: "
    "weather, weather-dev, weather-of-a-very-long-name-for-a-project-0123456789, energy, traffic. Correct "
    "the project in the extra.",
    "LakebaseCredentialError": "Connection 'lakebase_default': the service principal "
    "4f2c0e1a-0000-4000-8000-00000000c1e7 (environment) was refused a token. https://my.cloud.databricks.com/"
    "oidc/v1/token answered 401: invalid_client. Check the client id, that its secret has not expired, and "
    "that the principal belongs to the workspace.",
    "LakebaseConnectionError": "Connection 'lakebase_default': the endpoint at ep-cool-lake.database.us-west-"
    "2.cloud.databricks.com did not answer within 120 s. Check that host and port are right, and that the "
    "network lets you through.",
    "LakeTSNotInstalledError": "Database 'databricks_postgres' of connection 'lakebase_default' has no "
    "LakeTS. Run LakeTSInstallOperator, or `lakets install`.",
    "LakeTSPrivilegeError": "Role 'airflow-jobs' lacks a right: permission denied for table metrics. Grant "
    "it what docs/permissions.md lists for the jobs, as the owner of the table.",
    "LakeTSArgumentError": "'public.metric' is not a ChronoTable. There are: public.metrics, public.flights, "
    "public.weather. Name it as schema.table, or make it one with lakets.create_chronotable.",
    "LakeTSContendedError": "Creating chunks of public.metrics: another session holds a lock. Nothing was "
    "changed. Try again later.",
    "LakeTSPartialFailureError": "2 of 3 did not succeed; the rest is done.\n"
    "public.metrics_20250101_000000: failed - canceling statement due to statement timeout",
    "DBOSSettingError": "There is no queue 'order' of application 'shop' in schema 'dbos'. There are: "
    "'orders', 'invoices', 'by_customer'. A program creates one with DBOS.register_queue(name).",
    "DBOSWorkflowError": "DBOS workflow airflow/shop.orders/manual__2025-01-01T00:00:00+00:00/charge failed "
    "in step 2 'work': ValueError: no such card. See the log of its program.",
}


def test_each_class_of_error_is_tried() -> None:
    ours = {
        name
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and issubclass(kind, LakeTSError)
    }

    assert set(MESSAGES) == ours


class CauseError(Exception):
    """An error of a driver: long, and of no use for readers of the log."""


def raising(error: LakeTSError) -> Callable[[Any], Any]:
    """Return a function that raises our error from that of a driver."""

    def fail(_: Any) -> Any:
        raise error from CauseError("server closed the connection " * 20)

    return fail


def failed(task: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever class: what it shows is asked
        task.execute({"ti": None, "outlet_events": {}})
    return caught.value


def rendered(error: BaseException) -> list[str]:
    """Return the lines of an exception in Airflow's log view: the first begins with its class."""
    transform = structlog.tracebacks.ExceptionDictTransformer(use_rich=False, show_locals=False)
    lines = []
    for one in transform((type(error), error, error.__traceback__)):
        frames = [frame for frame in one["frames"] if frame["name"] != "failed"]  # of this test
        lines += [
            f"{frame['filename'].rpartition('/')[2]}:{frame['lineno']} in {frame['name']}" for frame in frames
        ]
        lines += f"{one['exc_type']}: {one['exc_value']}".splitlines()
    return lines


@pytest.mark.parametrize("name", MESSAGES)
def test_the_log_of_a_failed_task_is_a_screen_that_says_it_once(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    error = getattr(exceptions, name)(MESSAGES[name])
    task: Any
    if name.startswith("DBOS"):
        monkeypatch.setattr(DBOSCancelOperator, "make_hook", raising(error))
        task = DBOSCancelOperator(task_id="x", workflow_id="a")
    else:
        monkeypatch.setattr(LakeTSHook, "session", raising(error))
        task = LakeTSInstallOperator(task_id="x")

    lines = rendered(failed(task))

    text = " ".join(" ".join(lines).split())
    assert text.count(" ".join(MESSAGES[name].split())) == 1
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) < WIDE
    assert "server closed the connection" not in text + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "kind", [getattr(exceptions, name) for name in MESSAGES], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("words", range(24))
def test_a_line_with_a_long_name_fits_the_log_view(kind: type[LakeTSError], words: int) -> None:
    message = "word " * words + f"{LONG} is not a ChronoTable. There are: {LONG}, {LONG}. Name it."

    lines = f"{kind.__name__}: {wrapped(kind, message)}".splitlines()

    assert max(map(len, lines)) < WIDE
    assert " ".join(" ".join(lines).split()) == f"{kind.__name__}: {message}"
