"""Shared code of the LakeTS operators: one login per task, errors that decide retries, results."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider_lakets.compat import HAS_RETRY_POLICY, are_stats_on, fail
from airflow_provider_lakets.exceptions import (
    PERMANENT,
    LakeTSError,
    LakeTSPartialFailureError,
    wrapped,
)
from airflow_provider_lakets.links import LakebaseProjectLink, LakeTSPageLink
from airflow_provider_lakets.operators._arguments import ALL, as_bool, as_name, is_left_out
from airflow_provider_lakets.retries import LakeTSRetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Context

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.hooks.results import JobResult, PlanResult


# An error shows only this many problems; the result of the task has all.
PROBLEMS_SHOWN = 20


class LakeTSBaseOperator(BaseOperator):
    """
    Base of the operators: provide a hook, cancel its statements on kill, report the results.

    :param lakebase_conn_id: The connection of type ``lakebase``. (templated)
    """

    template_fields: Sequence[str] = ("lakebase_conn_id",)
    operator_extra_links = (LakeTSPageLink(), LakebaseProjectLink())
    ui_color = "#cfe8f3"

    def __init__(self, *, lakebase_conn_id: str = "lakebase_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lakebase_conn_id = lakebase_conn_id
        self._hook: LakeTSHook | None = None
        self._seconds = 0.0
        if HAS_RETRY_POLICY and self.retry_policy is None:
            self.retry_policy = LakeTSRetryPolicy()

    @contextlib.contextmanager
    def lakets(self, context: Context) -> Iterator[LakeTSHook]:
        """
        Log in once for the whole block; an error that a retry cannot fix fails the task at once.

        The message of a LakeTSError says what to do, on short lines, so Airflow shows only that.
        The traceback is logged at debug level.
        """
        from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]

        from airflow_provider_lakets.hooks.lakets import LakeTSHook

        # Set here, because a mapped task does not use the default of the constructor. In a mapped
        # group, the task in the context of Airflow 3.1 has no rendered arguments.
        if self.label and not context.get("map_index_template"):
            named: Any = context
            named.update(map_index_template="{{ lakets_label }}", lakets_label=self.label)
        self._hook = LakeTSHook(as_name(self.lakebase_conn_id, "lakebase_conn_id"))
        started = time.monotonic()
        try:
            with self._hook.session():
                yield self._hook
        except (AirflowNotFoundException, *PERMANENT) as err:
            self.log.debug("Where the error came from", exc_info=True)
            fail(str(err))
        except LakeTSError as err:
            self.log.debug("Where the error came from", exc_info=True)
            raise wrapped(type(err), str(err)) from None
        finally:
            self._seconds = time.monotonic() - started

    @property
    def label(self) -> str | None:
        """The name of a mapped task without a ``map_index_template``, if it has one."""
        return None

    def is_left_out(self, argument: object) -> bool:
        """Return whether the author omitted an argument, or passed None."""
        return is_left_out(self, argument)

    def or_all(self, argument: Any) -> Any:
        """Return an argument, or ``*`` if the author omitted it."""
        return ALL if self.is_left_out(argument) else argument

    def project_page(self) -> str | None:
        """Return the URL of the Lakebase project, empty if unknown; None before a login."""
        return self._hook and (self._hook.project_page() or "")

    def shaped(self, results: list[dict[str, Any]]) -> Any:
        """Return the results in the form that the task returns."""
        return results

    def report(self, context: Context, results: Sequence[JobResult]) -> list[dict[str, Any]]:
        """
        Return the results for XCom, or push them and fail the task.

        Airflow retries the task unless every failure is permanent.
        """
        for result in results:
            if result.ok:  # failures are in the error
                self.log.info("%s: %s%s", result.name, result.outcome, _after_dash(result.detail))
        plain = [result.as_dict() for result in results]
        if not all(result.ok for result in results):
            context["ti"].xcom_push(key="return_value", value=self.shaped(plain))
        raise_problems(results)
        return plain

    def on_kill(self) -> None:
        """Cancel the running statements; Postgres rolls each one back."""
        if self._hook is not None:
            self._hook.cancel()


class LakeTSJobOperator(LakeTSBaseOperator):
    """
    Base of the operators of the four jobs, which support dry runs.

    :param dry_run: Report what would happen, and change nothing; results are plans. (templated)
    """

    job: ClassVar[str]
    # The verb for what the job does to a chunk.
    would = "change"

    def __init__(self, *, dry_run: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Replaces a method of BaseOperator that Airflow never calls.
        self.dry_run = dry_run  # type: ignore[assignment,method-assign]

    @property
    def is_dry_run(self) -> bool:
        """Whether this is a dry run."""
        return as_bool(self.dry_run, "dry_run")

    def metric_tags(self, context: Context) -> dict[str, str]:
        """Return the tags of each metric of this task."""
        task = context["ti"]
        conn_id = as_name(self.lakebase_conn_id, "lakebase_conn_id")
        return {"dag_id": task.dag_id, "task_id": task.task_id, "lakebase_conn_id": conn_id}

    def report(self, context: Context, results: Sequence[JobResult]) -> list[dict[str, Any]]:
        """Send the result as Airflow metrics and return it for XCom, or fail the task."""
        if are_stats_on() and not self.is_dry_run:
            from airflow_provider_lakets.monitoring.stats import send_results

            send_results(self.job, results, seconds=self._seconds, tags=self.metric_tags(context))
        return super().report(context, results)

    def report_plans(self, context: Context, plans: Sequence[PlanResult]) -> list[dict[str, Any]]:
        """Return the plans for XCom; fail the task if a plan failed."""
        self.log.info("This is a dry run: nothing is changed")
        for plan in plans:
            for name in plan.planned:
                self.log.info("Would %s %s", self.would, name)
            for stays in plan.deferred:
                self.log.info("Would defer %s: %s", stays.chunk, stays.reason)
        return self.report(context, plans)


def raise_problems(results: Sequence[JobResult]) -> None:
    """Fail the task with the list of failures, if there are any."""
    problems = [result for result in results if not result.ok]
    if not problems:
        return
    lines = [f"{one.name}: {one.outcome}{_after_dash(one.detail)}" for one in problems[:PROBLEMS_SHOWN]]
    if problems[PROBLEMS_SHOWN:]:
        lines.append(f"... and {len(problems) - PROBLEMS_SHOWN} more: see the result of the task (XCom).")
    counts = f"{len(problems)} of {len(results)} did not succeed; the rest is done."
    message = "\n".join([counts, *lines])
    # A skipped item was skipped because of another one in the list, which decides.
    if any(result.retryable for result in problems if result.outcome != "skipped"):
        raise wrapped(LakeTSPartialFailureError, message)
    fail(message)


def _after_dash(detail: str | None) -> str:
    return f" - {detail}" if detail else ""
