"""Airflow provider for the LakeTS time-series lifecycle on Databricks Lakebase Postgres."""

from __future__ import annotations

__version__ = "0.2.0"
