"""Play a history back into the rows it leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_lakets.local.feed.delta import DELETE, UPDATE_PREIMAGE

if TYPE_CHECKING:
    from collections.abc import Sequence


def present_rows(history: pa.Table, columns: Sequence[str]) -> pa.Table:
    """
    Return the rows that remain when every change of a history is made, as a multiset in no order.

    :param history: Rows of a Delta history table.
    :param columns: The table's columns to compare rows by.
    :raises ValueError: When a row was taken away more often than it was put there.
    """
    if not columns:
        raise ValueError("A history is played back by its columns, and none were given.")
    takes_away = pc.is_in(history["_pg_change_type"], pa.array([DELETE, UPDATE_PREIMAGE]))
    sign = pc.if_else(takes_away, pa.scalar(-1, pa.int64()), pa.scalar(1, pa.int64()))
    counted = (
        history.select(list(columns))
        .append_column("_count", sign)
        .group_by(list(columns), use_threads=False)
        .aggregate([("_count", "sum")])
    )
    if len(counted) and pc.min(counted["_count_sum"]).as_py() < 0:
        wrong = counted.filter(pc.less(counted["_count_sum"], 0))
        raise ValueError(
            f"The history takes away {len(wrong)} row(s) that it never put there, such as "
            f"{wrong.slice(0, 1).to_pylist()[0]}: changes are missing from it."
        )
    positions = [
        position for position, count in enumerate(counted["_count_sum"].to_pylist()) for _ in range(count)
    ]
    return counted.select(list(columns)).take(pa.array(positions, pa.int64()))
