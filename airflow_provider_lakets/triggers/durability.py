"""Wait until data is durable in Unity Catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.triggers.base import LakeTSWatchTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_lakets.triggers.watch import Watch


class LakeTSDurabilityTrigger(LakeTSWatchTrigger):
    """
    Fire when the change feed of a ChronoTable has caught up, or when chunks are proved durable.

    :param table: The ChronoTable as ``schema.table``.
    :param chunks: Or the names of chunks.
    """

    def __init__(
        self, *, table: str | None = None, chunks: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.chunks = None if chunks is None else list(chunks)

    def arguments(self) -> dict[str, Any]:
        """Return the table and the chunks, one of them None."""
        return {"table": self.table, "chunks": self.chunks}

    def watch(self) -> Watch:
        """Check the table or the chunks."""
        from airflow_provider_lakets.triggers.watch import caught_up, durable

        return caught_up(self.table) if self.table is not None else durable(self.chunks or [])
