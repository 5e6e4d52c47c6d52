"""Names of Airflow's that are elsewhere in Airflow 3.1."""

from __future__ import annotations

try:
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException, TaskDeferralTimeout
except ImportError:  # Airflow 3.1
    from airflow.configuration import conf  # type: ignore[assignment,unused-ignore]
    from airflow.exceptions import (  # type: ignore[no-redef,unused-ignore]
        AirflowSensorTimeout,
        AirflowSkipException,
        TaskDeferralTimeout,
    )

__all__ = ["AirflowSensorTimeout", "AirflowSkipException", "TaskDeferralTimeout", "conf"]
