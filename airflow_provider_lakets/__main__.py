"""`python -m airflow_provider_lakets` is `lakets`."""

from __future__ import annotations

from airflow_provider_lakets.cli import app

app(prog_name="lakets")
