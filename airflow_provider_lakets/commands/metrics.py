"""`lakets metrics`: what `lakets_metrics()` returns, in the text format of Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_lakets.hooks.results import Metric

ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def exposition(metrics: Iterable[Metric]) -> str:
    """Return metrics as text, those of one name together, as the format asks."""
    by_name: dict[str, list[Metric]] = {}
    for metric in metrics:
        by_name.setdefault(metric.metric_name, []).append(metric)
    lines = []
    for name, values in by_name.items():
        lines.append(f"# TYPE {name} gauge")
        lines += [f"{name}{_labels(one)} {one.metric_value:.17g}" for one in values]
    return "\n".join([*lines, ""])


def _labels(metric: Metric) -> str:
    pairs = [f'{name}="{str(value).translate(ESCAPES)}"' for name, value in metric.labels.items()]
    return "{" + ",".join(pairs) + "}" if pairs else ""
