"""The asset events of a task, which report changes to other DAGs."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lakets.assets import DEFAULT_CONN_ID
from airflow_provider_lakets.compat import add_partitions
from airflow_provider_lakets.operators._batches import has_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from airflow.sdk import Asset, AssetAlias, BaseOperator, Context

    from airflow_provider_lakets.hooks.results import RefreshResult
    from airflow_provider_lakets.operators.base import LakeTSBaseOperator

# The format that Airflow's partition mappers read by default; a time in UTC.
PARTITION_KEY = "%Y-%m-%dT%H:%M:%S"

# The clocks of Airflow and the database may differ; an event too many is better than none.
CLOCKS_DIFFER = timedelta(minutes=1)

# The largest number of events of a task, not counting assets that some DAG names.
MOST_EVENTS = 50

# The XCom in which mapped tasks pass their events to the summary that follows them.
XCOM_KEY = "lakets_asset_events"


class Event(NamedTuple):
    """
    One event of an asset, or one for each partition.

    :param asset: The asset.
    :param extra: Plain values only: Airflow 3.1 accepts no others through an alias.
    :param partitions: Partition keys; each gets an event.
    """

    asset: Asset
    extra: dict[str, Any]
    partitions: Sequence[str] = ()


def add_alias(operator: BaseOperator, alias: AssetAlias) -> None:
    """Add an alias, through which a task emits events of assets that are known only at run time."""
    if all(getattr(outlet, "name", None) != alias.name for outlet in operator.outlets):
        operator.outlets = [*operator.outlets, alias]


def declare_alias(operator: LakeTSBaseOperator, kind: Callable[[str], AssetAlias]) -> None:
    """
    Add the alias of the operator's connection at parse time, so Airflow's graphs show it.

    :param operator: The operator; if its connection is a template, the alias is added when it runs.
    :param kind: Returns the alias of a connection.
    """
    if _is_known(operator.lakebase_conn_id):
        add_alias(operator, kind(operator.lakebase_conn_id))


def declare_aliases_of(operator: BaseOperator, results: Any) -> None:
    """
    Add the alias through which an operator records the events of the mapped tasks before it.

    :param operator: The operator.
    :param results: The results of the mapped tasks.
    """
    mapped = getattr(results, "operator", None)
    kind = getattr(getattr(mapped, "operator_class", type(mapped)), "asset_alias", None)
    if mapped is None or kind is None:
        return
    inherited = [mapped.dag, mapped.task_group]
    arguments: dict[str, Any] = {"lakebase_conn_id": DEFAULT_CONN_ID}
    for one in inherited:
        arguments.update(getattr(one, "default_args", None) or {})
    arguments.update(getattr(mapped, "partial_kwargs", None) or vars(mapped))
    if _is_known(arguments["lakebase_conn_id"]):
        add_alias(operator, kind(arguments["lakebase_conn_id"]))


def _is_known(conn_id: object) -> bool:
    return isinstance(conn_id, str) and bool(conn_id) and "{{" not in conn_id


def check_partitioned(operator: BaseOperator) -> None:
    """Refuse ``partitioned`` with an alias: alias events have the run's partition key, or none."""
    from airflow_provider_lakets.assets import SCHEME

    if not any(getattr(outlet, "uri", "").startswith(f"{SCHEME}:") for outlet in operator.outlets):
        raise ValueError(
            "partitioned needs the asset among the task's outlets: outlets=[tiered_asset('schema.table')]"
        )


def record(operator: BaseOperator, context: Context, alias: AssetAlias, events: Sequence[Event]) -> None:
    """
    Record an event for each asset, on the asset if it is an outlet of the task, else on the alias.

    An outlet that is a LakeTS asset is removed when it is unchanged, so that Airflow records no
    event for it. Airflow records the events when the task succeeds.

    :param alias: The alias of the connection.
    :param events: One for each asset that changed.
    """
    from airflow.sdk import Asset

    from airflow_provider_lakets.assets import SCHEME

    add_alias(operator, alias)
    accessors = context["outlet_events"]
    outlets = {
        outlet.uri: outlet
        for outlet in operator.outlets
        if isinstance(outlet, Asset) and outlet.uri.startswith(f"{SCHEME}:")
    }
    others = []
    for event in events:
        if outlet := outlets.pop(event.asset.uri, None):
            accessors[outlet].extra.update(event.extra)
            add_partitions(accessors[outlet], event.partitions)
        else:
            others.append(event)
    if others and context["ti"].map_index not in (None, -1) and has_summary(operator):
        passed = [{"alias": alias.name, "uri": event.asset.uri, "extra": event.extra} for event in others]
        context["ti"].xcom_push(key=XCOM_KEY, value=passed)
    else:
        _add_events(accessors[alias], others, operator.log)
    if outlets:
        operator.log.info("No asset event for %s: nothing new", ", ".join(outlets))
        operator.outlets = [
            outlet for outlet in operator.outlets if not (isinstance(outlet, Asset) and outlet.uri in outlets)
        ]


def passed_events(operator: BaseOperator, context: Context) -> list[dict[str, Any]]:
    """Return the events of the mapped tasks before this one, merged into one for each asset."""
    return [extra for _, extra in _merged_events(operator, context)]


def record_passed_events(operator: BaseOperator, context: Context) -> None:
    """
    Record the events of the mapped tasks before this one, merged into one for each asset.

    The mapped tasks do not record them: if two tasks end at the same time with an asset that is new
    to Airflow, both register it, and Airflow fails one of them without retries.
    """
    from airflow.sdk import Asset, AssetAlias

    merged = _merged_events(operator, context)
    for alias in sorted({alias for (alias, _), _ in merged}):
        add_alias(operator, AssetAlias(alias))
        events = [Event(Asset(uri), extra) for (name, uri), extra in merged if name == alias]
        _add_events(context["outlet_events"][AssetAlias(alias)], events, operator.log)


def _merged_events(operator: BaseOperator, context: Context) -> list[tuple[tuple[str, str], dict[str, Any]]]:
    pulled = context["ti"].xcom_pull(task_ids=sorted(operator.upstream_task_ids), key=XCOM_KEY)
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for event in (one for task in pulled or () for one in task or ()):
        extra = merged.setdefault((event["alias"], event["uri"]), {})
        extra.update({name: _joined(name, extra.get(name), value) for name, value in event["extra"].items()})
    return [*merged.items()]


def _joined(name: str, first: Any, second: Any) -> Any:
    """Merge two events of one asset: counts are added, ranges cover both."""
    if first is None or second is None:
        return first if second is None else second
    if isinstance(second, (int, float)):
        return first + second
    return min(first, second) if name == "range_start" else max(first, second)


def _add_events(alias: Any, events: Sequence[Event], log: Any) -> None:
    """
    Add the events of assets that are not outlets; if there are many, only of assets in some DAG.

    Airflow registers them one by one within the request that ends the task. That request times out
    after ``[workers] execution_api_timeout``, 5 seconds by default.

    :param alias: The accessor of the task's alias.
    :param events: One for each asset.
    """
    unnamed = list(events)
    if len(events) > MOST_EVENTS:
        unnamed = [event for event in events if not _add_if_named(alias, event)]
    room = max(0, MOST_EVENTS - (len(events) - len(unnamed)))
    for event in unnamed[:room]:
        alias.add(event.asset, extra=event.extra)
    log.info("Asset events: %s", ", ".join(event.asset.uri for event in events) or "none")
    if unnamed[room:]:
        log.warning(
            "%d of these have no event: a task has at most %d, not counting assets that some DAG names",
            len(unnamed[room:]),
            MOST_EVENTS,
        )


def _add_if_named(alias: Any, event: Event) -> bool:
    """Add the event if some DAG names the asset, and return whether one does."""
    from airflow.sdk import Asset
    from airflow.sdk.exceptions import AirflowRuntimeError

    try:
        alias.add(Asset.ref(uri=event.asset.uri), extra=event.extra)
    except AirflowRuntimeError:
        return False
    return True


def started_before(context: Context) -> datetime | None:
    """
    Return when the DAG run began, or slightly earlier, if this is not the first try of the task.

    Changes of an earlier try have no event yet: Airflow records events only of a successful try.
    """
    if context["ti"].try_number == 1:
        return None
    begun: datetime | None = context["dag_run"].start_date
    return begun and begun - CLOCKS_DIFFER


def refreshed(results: Sequence[RefreshResult], conn_id: str) -> list[Event]:
    """Return an event for each RollUp that changed."""
    from airflow_provider_lakets.assets import rollup_asset

    return [
        Event(
            rollup_asset(result.name, lakebase_conn_id=conn_id),
            {"rollup": result.name, "rows": result.rows, "removed": result.removed, "ms": result.ms},
        )
        for result in results
        if result.changed
    ]


def tiered(tables: Sequence[dict[str, Any]], conn_id: str, *, partitioned: bool = False) -> list[Event]:
    """
    Return an event for each ChronoTable that has newly tiered chunks.

    :param tables: The result of :func:`airflow_provider_lakets.hooks._counted.tiered_by_table`.
    :param partitioned: Whether to use the starts of the chunks as partition keys.
    """
    from airflow_provider_lakets.assets import tiered_asset

    events = []
    for table in tables:
        extra = {"table": table["table_name"]}
        extra |= {name: table[name] for name in ("chunks", "rows", "bytes")}
        extra |= {name: table[name].isoformat() for name in ("range_start", "range_end")}
        starts = table["starts"] if partitioned else ()
        partitions = [start.astimezone(timezone.utc).strftime(PARTITION_KEY) for start in starts]
        events.append(Event(tiered_asset(extra["table"], lakebase_conn_id=conn_id), extra, partitions))
    return events
