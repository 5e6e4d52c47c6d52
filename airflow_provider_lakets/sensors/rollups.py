"""Wait until a RollUp is fresh."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import LakeTSArgumentError
from airflow_provider_lakets.sensors.base import LakeTSBaseSensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_lakets.triggers.base import LakeTSBaseTrigger


class LakeTSRollupFreshSensor(LakeTSBaseSensor):
    """
    Wait until a RollUp has reached a watermark, was refreshed lately enough, or both.

    The watermark is the start of the newest bucket that is materialised: it moves when newer rows come. The
    lag is the time since the last refresh, whether or not that found anything new.

    :param rollup: Its name. (templated)
    :param watermark: The instant to be reached; text without a zone is UTC. (templated)
    :param max_lag: How long ago the last refresh may be: a timedelta, or a Postgres interval such as
        '30 minutes'. (templated)
    :param deferrable: Whether to wait in the triggerer; by default ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("rollup", "watermark", "max_lag", "lakebase_conn_id")

    def __init__(
        self,
        *,
        rollup: str,
        watermark: datetime | str | None = None,
        max_lag: timedelta | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if watermark is None and max_lag is None:
            raise ValueError("give watermark or max_lag, or both")
        self.rollup = rollup
        self.watermark = watermark
        self.max_lag = max_lag

    def trigger(self, **wait: Any) -> LakeTSBaseTrigger:
        """Return what to wait for."""
        from airflow_provider_lakets.triggers.rollups import LakeTSRollupFreshTrigger

        lag = self.max_lag
        if isinstance(lag, timedelta):
            lag = f"{lag.total_seconds()} seconds"
        return LakeTSRollupFreshTrigger(
            rollup=self.rollup, watermark=self._instant(), max_lag=lag or None, **wait
        )

    def _instant(self) -> str | None:
        """Return the watermark in a form that means the same in every session."""
        from airflow.sdk.timezone import parse

        value = self.watermark
        if isinstance(value, str):
            if value in ("", "None"):  # of a template, such as data_interval_end in a run without one
                raise LakeTSArgumentError(
                    f"The watermark for RollUp {self.rollup!r} was rendered to {value!r}: this run has no "
                    "such instant."
                )
            value = parse(value, timezone="UTC")
        return None if value is None else value.isoformat()
