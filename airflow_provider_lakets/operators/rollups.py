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
    Refresh RollUps as one cascade: each after those it reads, independent ones in parallel.

    Returns a dict for each RollUp: ``name``, ``outcome`` (refreshed, unchanged, skipped, contended,
    failed), ``ms``, ``detail``. If a RollUp fails, those that read it are skipped, all others are
    refreshed, and the task fails with the list.

    Each RollUp that changed gets an asset event, see
    :func:`airflow_provider_lakets.assets.rollup_asset`. If the OpenLineage provider is installed,
    the task reports what was read and written.

    :param rollup: Refresh only this RollUp and those it reads. Omit it or pass ``*`` for all.
        (templated)
    :param parallelism: How many RollUps to refresh at a time, each in a separate session.
    :param force: Refresh even if the ``refresh_lag`` of a RollUp has not passed. (templated)
    :param range_start: Re-aggregate every bucket of a range, from this time on, changed or not and
        regardless of ``refresh_lag``. A time without a zone is UTC; ``*`` means no range.
        (templated)
    :param range_end: The end of the range. Buckets whose source is dropped keep their value.
        (templated)
    :param dry_run: Report what would be refreshed, in order, and change nothing. (templated)
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
        """Return the result of each RollUp, in the order of the refreshes."""
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
        """Return what the refreshed RollUps read, and how many rows were written to each."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        from airflow_provider_lakets.lineage import of_refresh

        return of_refresh(**self._lineage) if self._lineage else OperatorLineage()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the same for the RollUps that were refreshed before the failure."""
        return self.get_openlineage_facets_on_complete(task_instance)
