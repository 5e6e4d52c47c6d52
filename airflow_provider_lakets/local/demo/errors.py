"""What can go wrong in a demo and is told in a sentence."""

from __future__ import annotations

from airflow_provider_lakets.exceptions import LakeTSError


class DemoError(LakeTSError):
    """The demo cannot go on; the message says why."""
