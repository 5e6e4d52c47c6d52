"""What differs between Airflow 3.1 and 3.3, in one place."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from typing import TYPE_CHECKING, Any, NoReturn

try:
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowSensorTimeout,
        AirflowSkipException,
        TaskDeferralTimeout,
    )
except ImportError:  # Airflow 3.1
    from airflow.configuration import conf  # type: ignore[assignment,unused-ignore]
    from airflow.exceptions import (  # type: ignore[no-redef,unused-ignore]
        AirflowFailException,
        AirflowSensorTimeout,
        AirflowSkipException,
        TaskDeferralTimeout,
    )

try:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy

    HAS_RETRY_POLICY = True
except ImportError:  # Airflow before 3.3 asks no task for one
    RetryDecision = RetryPolicy = object  # type: ignore[assignment,misc,unused-ignore]
    HAS_RETRY_POLICY = False

from airflow_provider_lakets.exceptions import wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "HAS_RETRY_POLICY",
    "AirflowFailException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "RetryDecision",
    "RetryPolicy",
    "TaskDeferralTimeout",
    "add_partitions",
    "answer_limit",
    "are_stats_on",
    "conf",
    "fail",
    "stats",
    "stored_connection",
]


def fail(message: str) -> NoReturn:
    """Fail the task without retry; the message is all that Airflow shows, on short lines."""
    raise AirflowFailException(wrapped(message)) from None


def answer_limit() -> str:
    """Return the argument that limits the wait for a human: 3.1 has only the task's own limit."""
    from airflow.providers.standard.operators.hitl import HITLOperator

    name = "response_timeout"
    return name if name in inspect.signature(HITLOperator.__init__).parameters else "execution_timeout"


def add_partitions(event: Any, partitions: Sequence[str]) -> None:
    """
    Give an asset event its partition keys; Airflow 3.1 has none.

    :param event: What the task's outlet is recorded by.
    :param partitions: The keys.
    """
    if partitions and hasattr(event, "add_partitions"):
        event.add_partitions([*partitions])


def are_stats_on() -> bool:
    """Tell whether Airflow sends metrics, to whatever."""
    kinds = ("statsd_on", "otel_on", "statsd_datadog_enabled")
    return any(conf.getboolean("metrics", kind, fallback=False) for kind in kinds)


def stats() -> Any:
    """Return the object that sends Airflow's own metrics: it is set up where a task runs."""
    for name in ("airflow.sdk.observability.stats", "airflow.observability.stats", "airflow.stats"):
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name).Stats
    raise AssertionError("unreachable: each supported Airflow has one of them")


def stored_connection(conn_id: str) -> Any:
    """
    Return the connection that a hook cannot find outside a task; None if the hook can find it.

    :param conn_id: Its id.
    """
    import airflow

    if not airflow.__version__.startswith("3.1."):
        return None
    # There, hooks look into the metadata database in tasks only. What is wrong, the hook tells
    # better.
    with contextlib.suppress(Exception):
        from airflow.models import Connection

        return Connection.get_connection_from_secrets(conn_id)
    return None
