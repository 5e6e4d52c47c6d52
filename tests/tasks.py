"""Every public operator and sensor with all its arguments, and the list of these arguments."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from airflow.sdk import BaseOperator

from airflow_provider_lakets.dbos.enqueue import DBOSEnqueueOperator
from airflow_provider_lakets.dbos.operators import (
    DBOSCancelOperator,
    DBOSForkOperator,
    DBOSListWorkflowsOperator,
    DBOSResumeOperator,
)
from airflow_provider_lakets.dbos.sensor import DBOSWorkflowSensor
from airflow_provider_lakets.get_provider_info import get_provider_info
from airflow_provider_lakets.operators.alerts import LakeTSAlertOperator
from airflow_provider_lakets.operators.approval import LakeTSForceApprovalOperator
from airflow_provider_lakets.operators.install import LakeTSInstallOperator
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.summary import LakeTSSummaryOperator
from airflow_provider_lakets.operators.tables import LakeTSTablesOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator
from airflow_provider_lakets.sensors.durability import LakeTSDurabilitySensor
from airflow_provider_lakets.sensors.rollups import LakeTSRollupFreshSensor

CHUNK = "public.metrics_20250101_000000"
RANGE = {"range_start": "2025-01-01", "range_end": "2025-01-02"}
DBOS: dict[str, Any] = {"dbos_schema": "dbos", "application": "shop"}
WORKFLOW = {
    "workflow_name": "a",
    "queue_name": "b",
    "workflow_args": [1],
    "workflow_kwargs": {"a": 1},
    "app_version": "1",
    "partition_key": "c",
    "attributes": {"a": 1},
    **DBOS,
}

# With all templated arguments; those with exclusive arguments are listed twice.
TASKS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "install": (LakeTSInstallOperator, {}),
    "partitions": (LakeTSPartitionOperator, {"tables": "a", "dry_run": False, **RANGE}),
    "candidates": (LakeTSTierCandidatesOperator, {"tables": "a", "dry_run": False}),
    "tier": (LakeTSTierOperator, {"chunks": CHUNK, "dry_run": False}),
    "retention": (
        LakeTSRetentionOperator,
        {"table": "a", "schema": "b", "force": False, "approved_chunks": [], "dry_run": False},
    ),
    "rollups": (LakeTSRollupRefreshOperator, {"rollup": "a", "force": False, "dry_run": False, **RANGE}),
    "tables": (LakeTSTablesOperator, {"tables": "a"}),
    "alert": (LakeTSAlertOperator, {"name": "a", "query": "SELECT 1", "severity": "warning"}),
    "silence": (LakeTSAlertOperator, {"name": "a", "table": "b", "group_by": "c", "timeout": "1 hour"}),
    "approval": (LakeTSForceApprovalOperator, {"tables": ["a"], "force": True, "dry_run": False}),
    "summary": (LakeTSSummaryOperator, {"given": ["a"], "results": [{"name": "a", "outcome": "tiered"}]}),
    "table": (LakeTSDurabilitySensor, {"table": "a"}),
    "chunks": (LakeTSDurabilitySensor, {"chunks": [CHUNK]}),
    "fresh": (LakeTSRollupFreshSensor, {"rollup": "a", "max_lag": "1 hour", "watermark": "2025-01-01"}),
    "workflow": (DBOSEnqueueOperator, {**WORKFLOW, "deduplication_id": "d", "workflow_id": "e"}),
    "workflows": (DBOSEnqueueOperator, {**WORKFLOW, "items": [1]}),
    "list": (
        DBOSListWorkflowsOperator,
        {
            "status": "ERROR",
            "workflow_name": "a",
            "queue_name": "b",
            "created_after": "2025-01-01",
            "created_before": "2025-01-02",
            "completed_after": "2025-01-01",
            "completed_before": "2025-01-02",
            "attributes": {"a": 1},
            "failed_in_step": 2,
            **DBOS,
        },
    ),
    "cancel": (DBOSCancelOperator, {"workflow_id": "a", **DBOS}),
    "resume": (DBOSResumeOperator, {"workflow_id": "a", "queue_name": "b", **DBOS}),
    "fork": (
        DBOSForkOperator,
        {"workflow_id": "a", "queue_name": "b", "start_step": 2, "app_version": "1", **DBOS},
    ),
    "ended": (DBOSWorkflowSensor, {"workflow_id": "a", **DBOS}),
}

# Base classes, which no DAG uses; and arguments that Airflow's own base classes check.
_BASES = {"DBOSControlOperator"}
_AIRFLOWS = {"trigger_rule"}


def public_tasks() -> list[type[Any]]:
    """Return every operator and sensor in the modules of the provider info."""
    info = get_provider_info()
    modules = [
        name for kind in ("operators", "sensors") for entry in info[kind] for name in entry["python-modules"]
    ]
    return [
        found
        for name in modules
        for found in vars(import_module(name)).values()
        if isinstance(found, type)
        and issubclass(found, BaseOperator)
        and found.__module__ == name
        and found.__name__ not in _BASES
    ]


def arguments_of(kind: type[Any]) -> dict[str, Any]:
    """Return the arguments of a task's own signatures, with their defaults."""
    return {
        one.name: one.default
        for ancestor in reversed(kind.__mro__)
        if ancestor.__module__.startswith("airflow_provider_lakets.") and "__init__" in vars(ancestor)
        for one in inspect.signature(vars(ancestor)["__init__"]).parameters.values()
        if one.kind is one.KEYWORD_ONLY and one.name not in _AIRFLOWS
    }
