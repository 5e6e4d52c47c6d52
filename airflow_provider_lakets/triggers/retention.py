"""Wait until chunks can be dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.triggers.base import LakeTSBaseTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_lakets.triggers.watch import Watch


class LakeTSRetentionTrigger(LakeTSBaseTrigger):
    """
    Fire when chunks past retention are durable in Unity Catalog and absorbed by every RollUp.

    :param table: Their ChronoTable as ``schema.table``.
    :param chunks: Their names.
    """

    def __init__(self, *, table: str, chunks: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.chunks = list(chunks)

    def arguments(self) -> dict[str, Any]:
        """Return the table and the chunks."""
        return {"table": self.table, "chunks": self.chunks}

    def watch(self) -> Watch:
        """Ask what still speaks against dropping them."""
        from airflow_provider_lakets.triggers.watch import droppable

        return droppable(self.table, self.chunks)
