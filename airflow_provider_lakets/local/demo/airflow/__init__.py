"""The Airflow that the demo runs the sample DAGs in."""

from __future__ import annotations
