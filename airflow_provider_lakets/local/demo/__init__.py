"""`lakets demo`: the lifecycle of a year of real data, on a local Lakebase and a real Airflow."""

from __future__ import annotations

from airflow_provider_lakets.local.demo.lifecycle import YEAR, Scale
from airflow_provider_lakets.local.demo.run import run_demo

__all__ = ["YEAR", "Scale", "run_demo"]
