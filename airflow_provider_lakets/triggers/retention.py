"""Wait until chunks can be dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.triggers.base import LakeTSWatchTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_lakets.triggers.watch import Watch


class LakeTSRetentionTrigger(LakeTSWatchTrigger):
    """
    Fire when chunks past retention are durable in Unity Catalog and absorbed by every RollUp.

    :param table: The ChronoTable as ``schema.table``.
    :param chunks: The names of its chunks.
    :param others: The chunks of more ChronoTables, by table.
    """

    def __init__(
        self,
        *,
        table: str,
        chunks: Sequence[str],
        others: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.chunks = list(chunks)
        self.others = {name: list(those) for name, those in (others or {}).items()}

    def arguments(self) -> dict[str, Any]:
        """Return the table and the chunks, and those of other tables."""
        return {"table": self.table, "chunks": self.chunks, "others": self.others}

    def watch(self) -> Watch:
        """Check what still prevents the drop."""
        from airflow_provider_lakets.triggers.watch import all_droppable

        return all_droppable({self.table: self.chunks, **self.others})
