"""The exception of the demo."""

from __future__ import annotations

from airflow_provider_lakets.exceptions import LakeTSError


class DemoError(LakeTSError):
    """The demo cannot continue; the message says why."""
