"""Job 4: bring the RollUps up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.assets import rollup_alias
from airflow_provider_lakets.compat import are_stats_on
from airflow_provider_lakets.operators import _events
from airflow_provider_lakets.operators._arguments import (
    ALL,
    LEFT_OUT,
    as_bool,
    as_name,
    as_range,
    check_range,
    count,
)
from airflow_provider_lakets.operators.base import LakeTSJobOperator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context


class LakeTSRollupRefreshOperator(LakeTSJobOperator):
    """
    Refresh RollUps as one cascade: each after those it reads, independent ones side by side.

    Returns a dict for each RollUp: ``name``, ``outcome`` (refreshed, unchanged, skipped, contended,
    failed), ``ms``, ``detail``. One that fails stops neither its siblings nor what was refreshed
    before; what reads it is skipped, and the task fails with the list.

    Each RollUp that was changed gets an asset event, see
    :func:`airflow_provider_lakets.assets.rollup_asset`; OpenLineage, where its provider is
    installed, is told what was read and written.

    :param rollup: Refresh only this one and all that it reads; ``*``, or left out: every RollUp.
        (templated)
    :param parallelism: How many to refresh at a time, each in a session of its own.
    :param force: Refresh although a RollUp's ``refresh_lag`` has not passed. (templated)
    :param range_start: Aggregate each bucket from this instant on again, whether or not it changed
        and whatever the ``refresh_lag``; without a zone it is UTC, and ``*`` is no range.
        (templated)
    :param range_end: ... up to this instant. Buckets whose source is dropped keep their value.
        (templated)
    :param dry_run: Tell what would be refreshed, in which order. (templated)
    """

    template_fields: Sequence[str] = (
        "rollup",
        "force",
        "range_start",
        "range_end",
        "dry_run",
        "lakebase_conn_id",
    )
    job = "refresh"
    would = "refresh"
    asset_alias = staticmethod(rollup_alias)

    def __init__(
        self,
        *,
        rollup: str | None = LEFT_OUT,
        parallelism: int = 4,
        force: bool | str = False,
        range_start: datetime | str | None = LEFT_OUT,
        range_end: datetime | str | None = LEFT_OUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rollup = self.or_all(rollup)
        self.parallelism = count(parallelism, "parallelism")
        self.force = force
        self.range_start = self.or_all(range_start)
        self.range_end = self.or_all(range_end)
        check_range(self.range_start, self.range_end)
        self._lineage: dict[str, Any] | None = None
        _events.declare_alias(self, rollup_alias)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return what became of each RollUp, in the order it happened."""
        from airflow_provider_lakets.lineage import note_refresh
        from airflow_provider_lakets.monitoring.stats import send_lags

        rollup = None if self.rollup == ALL else as_name(self.rollup, "rollup")
        start, end = as_range(self.range_start, self.range_end)
        what: dict[str, Any] = {"force": as_bool(self.force, "force"), "start": start, "end": end}
        with self.lakets(context) as hook:
            if self.is_dry_run:
                _events.record(self, context, rollup_alias(self.lakebase_conn_id), [])
                return self.report_plans(context, hook.plan_refresh(rollup, **what))
            results = hook.refresh(
                rollup,
                parallelism=self.parallelism,
                **what,
                since=_events.started_before(context),
            )
            if are_stats_on():
                send_lags(hook, results, tags=self.metric_tags(context))
            self._lineage = note_refresh(hook, results)
        plain = self.report(context, results)
        events = _events.refreshed(results, self.lakebase_conn_id)
        _events.record(self, context, rollup_alias(self.lakebase_conn_id), events)
        return plain

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what the refreshed RollUps read, and how many rows were written into each."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        from airflow_provider_lakets.lineage import of_refresh

        return of_refresh(**self._lineage) if self._lineage else OperatorLineage()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the same of those RollUps that were refreshed all the same."""
        return self.get_openlineage_facets_on_complete(task_instance)
