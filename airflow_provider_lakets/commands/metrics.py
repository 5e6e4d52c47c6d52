"""`lakets metrics`: what `lakets_metrics()` returns, in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_lakets.hooks.results import Metric
from airflow_provider_lakets.monitoring.finding import SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_lakets.monitoring.finding import Attention

# The meaning of each metric; metrics of a newer LakeTS are not listed.
HELP = {
    "lakets_chronotables_total": "ChronoTables.",
    "lakets_chunks_total": "Chunks by status.",
    "lakets_policies_total": "Enabled policies by type.",
    "lakets_database_size_bytes": "Size of the database in Lakebase.",
    "lakets_estimated_rows": "Rows of a ChronoTable, as far as ANALYZE and VACUUM know.",
    "lakets_rows_outside_chunks": "Rows outside all chunks, which are neither tiered nor dropped.",
    "lakets_sync_enabled": "1 if a ChronoTable is mirrored for the change feed.",
    "lakets_tiering_pending_chunks": "Chunks that are due for tiering.",
    "lakets_tiering_tiered_chunks_total": "Chunks that are durable in Unity Catalog and still in Lakebase.",
    "lakets_tiering_caught_up": "1 if all changes are flushed to Unity Catalog.",
    "lakets_tiering_reclaimable_bytes": "Size of the tiered chunks, which retention can reclaim.",
    "lakets_tiering_reclaimed_bytes": "Size of the chunks that were dropped.",
    "lakets_feed_streaming": "1 if the change feed streams the table.",
    "lakets_feed_lag_bytes": "How far the change feed is behind the last write.",
    "lakets_rollup_watermark_lag_seconds": "Age of the newest bucket of a RollUp.",
    "lakets_rollup_refresh_lag_seconds": "Time since the last refresh of a RollUp.",
    "lakets_rollup_invalidation_log_depth": "Buckets of a RollUp that are marked to be computed again.",
    "lakets_job_last_run_timestamp_seconds": "Start of the last run of a job.",
    "lakets_job_last_run_seconds": "Duration of the last run of a job.",
    "lakets_attention": "Problems that need attention, by kind and severity, as in `lakets status`.",
    "lakets_job_problems_1d": "How often a job had a problem with a table or a RollUp within a day.",
}

ATTENTION = "lakets_attention"
ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def of_attention(attention: Iterable[Attention]) -> Iterator[Metric]:
    """Yield the number of problems of each kind, including 0."""
    counts = Counter(one.code for one in attention)
    for code, severity in SEVERITIES.items():
        yield Metric(ATTENTION, counts[code], {"code": code, "severity": severity})


def exposition(metrics: Iterable[Metric]) -> str:
    """Return metrics as text, grouped by name, as the format requires."""
    by_name: dict[str, list[Metric]] = {}
    for metric in metrics:
        if metric.metric_value is None:
            continue  # the engine could not measure it, for example while the table was locked
        by_name.setdefault(metric.metric_name, []).append(metric)
    lines = []
    for name, values in by_name.items():
        if name in HELP:
            lines.append(f"# HELP {name} {HELP[name]}")
        lines.append(f"# TYPE {name} gauge")
        lines += [f"{name}{_labels(one)} {one.metric_value:.17g}" for one in values]
    return "\n".join([*lines, ""])


def _labels(metric: Metric) -> str:
    pairs = [f'{name}="{str(value).translate(ESCAPES)}"' for name, value in metric.labels.items()]
    return "{" + ",".join(pairs) + "}" if pairs else ""
