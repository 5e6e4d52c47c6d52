"""
DBOS programs on Lakebase, and Airflow as their cockpit.

The engine needs neither Airflow nor DBOS; what Airflow runs is in the modules beside it.
"""

from __future__ import annotations

from airflow_provider_lakets.dbos.engine import create_lakebase_async_engine, create_lakebase_engine

__all__ = ["create_lakebase_async_engine", "create_lakebase_engine"]
