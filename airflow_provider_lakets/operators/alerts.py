"""Let LakeTS alerts fail a task, skip the tasks after it, or choose the branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.standard.operators.branch import BranchMixIn

from airflow_provider_lakets.compat import AirflowSkipException, fail
from airflow_provider_lakets.operators._arguments import (
    LEFT_OUT,
    as_interval,
    as_name,
    as_names,
    is_nothing,
    one_of,
    text,
)
from airflow_provider_lakets.operators.base import LakeTSBaseOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.hooks.results import Alert, SilentSeries

    OnAlert = Literal["fail", "skip", "branch", "report"]

ON_ALERT = ("fail", "skip", "branch", "report")
# An error shows only this many alerts; the result of the task has all.
ALERTS_SHOWN = 20


class LakeTSAlertOperator(LakeTSBaseOperator, BranchMixIn):
    """
    Check an alert: a query that returns rows, or a table with series that stopped sending data.

    Pass either ``query``, or ``table``, ``group_by`` and ``timeout``. Returns the alerts as a list
    of dicts, which is empty without alerts. ``on_alert`` sets what an alert does:

    - ``fail``: the task fails without retries, with the alerts in its error. The list is still its
      result.
    - ``skip``: the task and the tasks after it are skipped.
    - ``branch``: the tasks of ``if_alert`` run next, or those of ``if_quiet`` without alerts; the
      others are skipped.
    - ``report``: nothing; the next task reads the list.

    :param name: The name of the alert. (templated)
    :param query: A SELECT that returns one row for each problem. (templated)
    :param severity: The severity of the query's alerts. (templated)
    :param table: The ChronoTable with the series, as ``schema.table``. (templated)
    :param group_by: The column that identifies a series. (templated)
    :param timeout: How long a series may be silent: a timedelta or a Postgres interval. (templated)
    :param on_alert: What an alert does: ``fail``, ``skip``, ``branch`` or ``report``.
    :param if_alert: For ``branch``: the ids of the tasks to run if there are alerts.
    :param if_quiet: For ``branch``: the ids of the tasks to run if there are none.
    """

    template_fields: Sequence[str] = (
        "name",
        "query",
        "severity",
        "table",
        "group_by",
        "timeout",
        "lakebase_conn_id",
    )
    template_fields_renderers = {"query": "sql"}  # noqa: RUF012 - as BaseOperator declares it
    template_ext: Sequence[str] = (".sql",)
    # Airflow then also skips mapped tasks of the other branch, and tasks that are cleared later.
    inherits_from_skipmixin = True

    def __init__(
        self,
        *,
        name: str,
        query: str | None = LEFT_OUT,
        severity: str = "warning",
        table: str | None = LEFT_OUT,
        group_by: str | None = LEFT_OUT,
        timeout: str | timedelta | None = LEFT_OUT,
        on_alert: OnAlert = "fail",
        if_alert: str | Sequence[str] = (),
        if_quiet: str | Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._has_query = not self.is_left_out(query)
        if [self.is_left_out(one) for one in (table, group_by, timeout)] != [self._has_query] * 3:
            raise ValueError("give either query, or table, group_by and timeout")
        if (on_alert == "branch") != bool(if_alert or if_quiet):
            raise ValueError("if_alert or if_quiet go with on_alert='branch', which needs one of them")
        self.name = name
        self.query = query if self._has_query else None
        self.severity = severity
        self.table = None if self._has_query else table
        self.group_by = None if self._has_query else group_by
        self.timeout = None if self._has_query else timeout
        self.on_alert = one_of(on_alert, "on_alert", ON_ALERT)
        self.if_alert = _task_ids(if_alert, "if_alert")
        self.if_quiet = _task_ids(if_quiet, "if_quiet")

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the alerts; fail or skip the task if ``on_alert`` says so."""
        ask = self._question()
        self._check_branches()
        with self.lakets(context) as hook:
            found = ask(hook)
        alerts = [alert.as_dict() for alert in found]
        for alert in alerts:
            self.log.warning("%s: %s", alert["alert_name"], _in_words(alert))
        if self.on_alert == "branch":
            self.do_branch(context, self.if_alert if alerts else self.if_quiet)
        elif alerts and self.on_alert == "fail":
            context["ti"].xcom_push(key="return_value", value=alerts)
            fail("\n".join([f"Alert {self.name}: {len(alerts)} found.", *_shown(alerts)]))
        elif alerts and self.on_alert == "skip":
            context["ti"].xcom_push(key="return_value", value=alerts)
            raise AirflowSkipException(f"Alert {self.name}: {len(alerts)} found.")
        return alerts

    def _check_branches(self) -> None:
        """Fail if a branch does not follow, even if the other one is taken now."""
        after = self.downstream_task_ids
        for one in (*self.if_alert, *self.if_quiet):
            group = self.dag.task_group_dict.get(one)
            first = {root.task_id for root in group.roots} if group else {one}
            if not first <= after:
                fail(
                    f"{one!r} of if_alert and if_quiet is not a task directly after {self.task_id!r}. These "
                    f"are: {', '.join(sorted(after)) or 'none'}."
                )

    def _question(self) -> Callable[[LakeTSHook], Sequence[Alert | SilentSeries]]:
        """Return the query to run; an empty argument fails before the login."""
        name = as_name(self.name, "name")
        if self._has_query:
            query, severity = self.query, as_name(self.severity, "severity")
            if is_nothing(query) or not isinstance(query, str):
                fail(f"query was rendered to {query!r}, which finds nothing. Correct the template.")
            return lambda hook: hook.alert_check(name, query, severity=severity)
        names, group_by = as_names(self.table, "table"), as_name(self.group_by, "group_by")
        timeout = as_interval(self.timeout, "timeout")

        def find_silent(hook: LakeTSHook) -> Sequence[SilentSeries]:
            (table,) = hook.chronotables(names)
            schema = table.schema_name
            return hook.alert_deadman(name, table.table_name, group_by, timeout, schema_name=schema)

        return find_silent


def _task_ids(given: str | Sequence[str], name: str) -> list[str]:
    ids = [given] if isinstance(given, str) else given
    return [text(one, name) for one in ids] if isinstance(ids, (list, tuple)) else [text(ids, name)]


def _in_words(alert: dict[str, Any]) -> str:
    if "alert_data" in alert:
        return ", ".join(f"{name} = {value}" for name, value in alert["alert_data"].items())
    return f"{alert['dead_key']} is silent for {alert['silent_for']}, since {alert['last_seen']}"


def _shown(alerts: list[dict[str, Any]]) -> list[str]:
    lines = [_in_words(alert) for alert in alerts[:ALERTS_SHOWN]]
    if alerts[ALERTS_SHOWN:]:
        lines.append(f"... and {len(alerts) - ALERTS_SHOWN} more: see the result of the task (XCom).")
    return lines
