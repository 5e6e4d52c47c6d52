"""Wait until a RollUp is fresh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.operators._arguments import LEFT_OUT, as_instant, as_interval, as_name
from airflow_provider_lakets.sensors.base import LakeTSBaseSensor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from airflow_provider_lakets.triggers.base import LakeTSWatchTrigger


class LakeTSRollupFreshSensor(LakeTSBaseSensor):
    """
    Wait until a RollUp has reached a watermark, was refreshed recently enough, or both.

    The watermark is the start of the newest materialised bucket that is not in the future; it
    advances when newer rows arrive. The lag is the time since the last refresh, whether or not that
    found anything new.

    A template that renders to nothing fails the task without retries, even if the other condition
    is met.

    :param rollup: The name of the RollUp. (templated)
    :param watermark: The time that the watermark must reach; without a zone it is UTC. (templated)
    :param max_lag: The longest time since the last refresh: a timedelta, or a Postgres interval
        such as '30 minutes'. (templated)
    :param deferrable: Whether to wait in the triggerer; the default is ``[operators]
        default_deferrable``.
    """

    template_fields: Sequence[str] = ("rollup", "watermark", "max_lag", "lakebase_conn_id")

    def __init__(
        self,
        *,
        rollup: str,
        watermark: datetime | str | None = LEFT_OUT,
        max_lag: timedelta | str | None = LEFT_OUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._has_watermark = not self.is_left_out(watermark)
        self._has_max_lag = not self.is_left_out(max_lag)
        if not (self._has_watermark or self._has_max_lag):
            raise ValueError("give watermark or max_lag, or both")
        self.rollup = rollup
        self.watermark = watermark if self._has_watermark else None
        self.max_lag = max_lag if self._has_max_lag else None

    def trigger(self, **wait: Any) -> LakeTSWatchTrigger:
        """Return the trigger; the watermark is converted so that session settings do not matter."""
        from airflow_provider_lakets.triggers.rollups import LakeTSRollupFreshTrigger

        return LakeTSRollupFreshTrigger(
            rollup=as_name(self.rollup, "rollup"),
            watermark=as_instant(self.watermark, "watermark").isoformat() if self._has_watermark else None,
            max_lag=as_interval(self.max_lag, "max_lag") if self._has_max_lag else None,
            **wait,
        )
