"""
DBOS programs on Lakebase, and operators that control them from Airflow.

The engine needs neither Airflow nor DBOS; the other modules are for Airflow.
"""

from __future__ import annotations

from airflow_provider_lakets.dbos.engine import create_lakebase_async_engine, create_lakebase_engine

__all__ = ["create_lakebase_async_engine", "create_lakebase_engine"]
