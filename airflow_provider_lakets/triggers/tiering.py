"""Wait until chunks can be flagged as tiered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.triggers.base import LakeTSWatchTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_lakets.triggers.watch import Watch


class LakeTSTierTrigger(LakeTSWatchTrigger):
    """
    Fire when the change feed has flushed all writes to chunks that ``tier_chunk`` deferred.

    :param chunks: The names of the chunks.
    """

    def __init__(self, *, chunks: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chunks = list(chunks)

    def arguments(self) -> dict[str, Any]:
        """Return the chunks."""
        return {"chunks": self.chunks}

    def watch(self) -> Watch:
        """Check whether they are durable; LakeTS 0.1.x also flags durable ones."""
        from airflow_provider_lakets.triggers.watch import durable

        return durable(self.chunks, may_flag=True)
