"""Tell other DAGs what was changed: asset events of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow.sdk import Asset, BaseOperator, Context

    from airflow_provider_lakets.hooks.results import RefreshResult

# An asset, and what to tell of it: plain values only, Airflow 3.1 takes no others through an alias.
Event = tuple["Asset", dict[str, Any]]


def tell_through(operator: BaseOperator, alias: str) -> None:
    """Have a task tell of assets that are known only when it runs, through an alias."""
    from airflow.sdk import AssetAlias

    if all(getattr(outlet, "name", None) != alias for outlet in operator.outlets):
        operator.outlets = [*operator.outlets, AssetAlias(alias)]


def tell(operator: BaseOperator, context: Context, alias: str, events: Sequence[Event]) -> None:
    """
    Record an event for each asset: its own where the DAG's author made it an outlet, else through the alias.

    An outlet that is an asset of ours gets no event, as others would, when nothing happened to it. Airflow
    takes the events over when the task succeeds.

    :param alias: The one given to :func:`tell_through`.
    :param events: The assets that were changed.
    """
    from airflow.sdk import Asset, AssetAlias

    from airflow_provider_lakets.assets import SCHEME

    accessors = context["outlet_events"]
    outlets = {
        outlet.uri: outlet
        for outlet in operator.outlets
        if isinstance(outlet, Asset) and outlet.uri.startswith(f"{SCHEME}:")
    }
    for asset, extra in events:
        if outlet := outlets.pop(asset.uri, None):
            accessors[outlet].extra.update(extra)
        else:
            accessors[AssetAlias(alias)].add(asset, extra=extra)
        operator.log.info("Asset event for %s", asset.uri)
    if outlets:
        operator.log.info("No asset event for %s: nothing new", ", ".join(outlets))
        operator.outlets = [
            outlet for outlet in operator.outlets if not (isinstance(outlet, Asset) and outlet.uri in outlets)
        ]


def started_before(context: Context) -> datetime | None:
    """
    Return when the DAG run began, if this is not the first try of the task.

    What an earlier try changed has had no event: events are taken over from a try that succeeds.
    """
    begun: datetime | None = context["dag_run"].start_date
    return begun if context["ti"].try_number > 1 else None


def refreshed(results: Sequence[RefreshResult], conn_id: str) -> list[Event]:
    """Return an event for each RollUp that was changed."""
    from airflow_provider_lakets.assets import rollup_asset

    return [
        (
            rollup_asset(result.name, lakebase_conn_id=conn_id),
            {"rollup": result.name, "rows": result.rows, "removed": result.removed, "ms": result.ms},
        )
        for result in results
        if result.changed
    ]


def tiered(tables: Sequence[dict[str, Any]], conn_id: str) -> list[Event]:
    """
    Return an event for each ChronoTable that has newly tiered chunks.

    :param tables: What :func:`airflow_provider_lakets.hooks._counted.tiered_by_table` counted.
    """
    from airflow_provider_lakets.assets import tiered_asset

    events = []
    for table in tables:
        extra = {**table, "table": table["table_name"]}
        extra.pop("table_name")
        extra.update({name: extra[name].isoformat() for name in ("range_start", "range_end")})
        events.append((tiered_asset(table["table_name"], lakebase_conn_id=conn_id), extra))
    return events
