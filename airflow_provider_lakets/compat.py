"""Differences between Airflow 3.1 and 3.3, in one place."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from typing import TYPE_CHECKING, Any, NoReturn

try:
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowRescheduleException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferralTimeout,
    )
except ImportError:  # Airflow 3.1
    from airflow.configuration import conf  # type: ignore[assignment,unused-ignore]
    from airflow.exceptions import (  # type: ignore[no-redef,unused-ignore]
        AirflowFailException,
        AirflowRescheduleException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferralTimeout,
    )

try:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy

    HAS_RETRY_POLICY = True
except ImportError:  # Airflow before 3.3 has no retry policies
    RetryDecision = RetryPolicy = object  # type: ignore[assignment,misc,unused-ignore]
    HAS_RETRY_POLICY = False

from airflow_provider_lakets.exceptions import wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "HAS_RETRY_POLICY",
    "AirflowFailException",
    "AirflowRescheduleException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
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
    """Fail the task without retries; Airflow shows only the message, on short lines."""
    raise wrapped(AirflowFailException, message) from None


def answer_limit() -> str:
    """Return the argument that limits the wait for a response; 3.1 has only the task's timeout."""
    from airflow.providers.standard.operators.hitl import HITLOperator

    name = "response_timeout"
    return name if name in inspect.signature(HITLOperator.__init__).parameters else "execution_timeout"


def add_partitions(event: Any, partitions: Sequence[str]) -> None:
    """
    Add partition keys to an asset event; on Airflow 3.1, which has none, do nothing.

    :param event: The accessor of the task's outlet.
    :param partitions: The keys.
    """
    if partitions and hasattr(event, "add_partitions"):
        event.add_partitions([*partitions])


def are_stats_on() -> bool:
    """Return whether Airflow sends metrics."""
    kinds = ("statsd_on", "otel_on", "statsd_datadog_enabled")
    return any(conf.getboolean("metrics", kind, fallback=False) for kind in kinds)


def stats() -> Any:
    """Return the object that sends Airflow's metrics; it is configured where a task runs."""
    for name in ("airflow.sdk.observability.stats", "airflow.observability.stats", "airflow.stats"):
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name).Stats
    raise AssertionError("unreachable: each supported Airflow has one of them")


def stored_connection(conn_id: str) -> Any:
    """
    Return a connection that a hook cannot find outside a task, or None if the hook can find it.

    :param conn_id: The id of the connection.
    """
    import airflow

    if not airflow.__version__.startswith("3.1."):
        return None
    # In that version, hooks read the metadata database only in tasks. Errors are ignored here: the
    # hook reports them.
    with contextlib.suppress(Exception):
        from airflow.models import Connection

        return Connection.get_connection_from_secrets(conn_id)
    return None
