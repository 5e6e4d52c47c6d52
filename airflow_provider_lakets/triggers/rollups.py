"""Wait until a RollUp is fresh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.triggers.base import LakeTSWatchTrigger

if TYPE_CHECKING:
    from airflow_provider_lakets.triggers.watch import Watch


class LakeTSRollupFreshTrigger(LakeTSWatchTrigger):
    """
    Fire when a RollUp has reached a watermark, was refreshed recently enough, or both.

    :param rollup: The name of the RollUp.
    :param watermark: The time that its newest bucket must reach, as ISO 8601 text.
    :param max_lag: The longest time since its last refresh, as a Postgres interval.
    """

    def __init__(
        self, *, rollup: str, watermark: str | None = None, max_lag: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rollup = rollup
        self.watermark = watermark
        self.max_lag = max_lag

    def arguments(self) -> dict[str, Any]:
        """Return the RollUp and its bounds."""
        return {"rollup": self.rollup, "watermark": self.watermark, "max_lag": self.max_lag}

    def watch(self) -> Watch:
        """Check how fresh it is."""
        from airflow_provider_lakets.triggers.watch import fresh

        return fresh(self.rollup, watermark=self.watermark, max_lag=self.max_lag)
