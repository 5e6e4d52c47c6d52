"""Wait until data is durable in Unity Catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.operators._arguments import LEFT_OUT, as_name, as_names
from airflow_provider_lakets.sensors.base import LakeTSBaseSensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_lakets.triggers.base import LakeTSWatchTrigger


class LakeTSDurabilitySensor(LakeTSBaseSensor):
    """
    Wait until the change feed of a ChronoTable has caught up, or until chunks are proved durable.

    The feed has caught up when everything committed to the table at that time is flushed to Unity
    Catalog. If writers never pause, wait for chunks that they no longer write to. LakeTS 0.1.x
    reports a chunk as durable only after it is tiered, or after its whole table is flushed.

    A template that renders to nothing fails the task without retries.

    :param table: The ChronoTable as ``schema.table``, or ``table`` for one in schema public.
        (templated)
    :param chunks: Instead of a table, the name of a chunk or a list of names. (templated)
    :param deferrable: Whether to wait in the triggerer; the default is ``[operators]
        default_deferrable``.
    """

    template_fields: Sequence[str] = ("table", "chunks", "lakebase_conn_id")

    def __init__(
        self,
        *,
        table: str | None = LEFT_OUT,
        chunks: str | Sequence[str] | None = LEFT_OUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._by_table = not self.is_left_out(table)
        if self._by_table != self.is_left_out(chunks):
            raise ValueError("give table or chunks: one of them, and not both")
        self.table = table if self._by_table else None
        self.chunks = None if self._by_table else chunks

    def trigger(self, **wait: Any) -> LakeTSWatchTrigger:
        """Return the trigger with the condition to wait for."""
        from airflow_provider_lakets.triggers.durability import LakeTSDurabilityTrigger

        if self._by_table:
            return LakeTSDurabilityTrigger(table=as_name(self.table, "table"), **wait)
        return LakeTSDurabilityTrigger(chunks=as_names(self.chunks, "chunks"), **wait)
