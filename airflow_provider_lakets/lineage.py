"""OpenLineage: dataset names, and the inputs and outputs of a refresh."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import LakeTSError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lakets.hooks.lakebase import LakebaseHook
    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.hooks.results import RefreshResult, Rollup


def is_wanted() -> bool:
    """Return whether the OpenLineage provider is installed, without importing it."""
    try:
        return importlib.util.find_spec("airflow.providers.openlineage") is not None
    except ValueError:  # it was disabled: sys.modules has None for it
        return False


def note_refresh(hook: LakeTSHook, results: Iterable[RefreshResult]) -> dict[str, Any] | None:
    """
    Return the arguments for :func:`of_refresh`; None if there is nothing to report.

    :param hook: Queried now, because OpenLineage asks after the task, without database access.
    :param results: The results of the RollUps.
    """
    rows = {result.name: result.rows for result in results if result.outcome == "refreshed"}
    if not rows or not is_wanted():
        return None
    try:
        namespace, database = hook.lineage_names()
        reads = tables_read(hook.rollups())
    except LakeTSError as err:
        hook.log.warning("The refresh is not reported to OpenLineage: %s", err)
        return None
    return {"namespace": namespace, "database": database, "reads": reads, "rows": rows}


def tables_read(rollups: Iterable[Rollup]) -> dict[str, list[str]]:
    """Return the tables that each RollUp reads."""
    return {
        rollup.name: [
            *([rollup.source] if rollup.source else []),
            *(rollup_table(name) for name in rollup.depends_on),
        ]
        for rollup in rollups
    }


def rollup_table(name: str) -> str:
    """Return the table of a RollUp as ``schema.table``."""
    return f"public._rollup_{name}"


def dataset(hook: LakebaseHook, table: str) -> Dataset:
    """
    Return a table as an OpenLineage dataset of Postgres.

    :param hook: The hook of the database.
    :param table: The table as ``schema.table``.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    namespace, database = hook.lineage_names()
    return Dataset(namespace=namespace, name=f"{database}.{table}")


def of_refresh(
    namespace: str, database: str, reads: Mapping[str, Iterable[str]], rows: Mapping[str, int | None]
) -> OperatorLineage[Any, Any]:
    """
    Return the lineage of a refresh: what the RollUps read, and how many rows were written to each.

    :param namespace: The server.
    :param database: The database.
    :param reads: The tables that each refreshed RollUp reads, as ``schema.table``.
    :param rows: How many rows were written to each; None if unknown.
    """
    from airflow.providers.common.compat.openlineage.facet import (
        Dataset,
        OutputDataset,
        OutputStatisticsOutputDatasetFacet,
    )
    from airflow.providers.openlineage.extractors import OperatorLineage

    sources = {table for name in rows for table in reads.get(name, ())}

    def facets(count: int | None) -> dict[str, Any]:
        if count is None:
            return {}
        return {"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=count)}

    return OperatorLineage(
        inputs=[Dataset(namespace=namespace, name=f"{database}.{table}") for table in sorted(sources)],
        outputs=[
            OutputDataset(
                namespace=namespace, name=f"{database}.{rollup_table(name)}", outputFacets=facets(count)
            )
            for name, count in rows.items()
        ],
    )
