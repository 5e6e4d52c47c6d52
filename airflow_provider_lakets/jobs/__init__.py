"""The jobs ready-made: DAGs for whole projects, or a task group for your own DAG."""

from __future__ import annotations

from airflow_provider_lakets.jobs.factory import lakets_dags
from airflow_provider_lakets.jobs.group import lakets_task_group
from airflow_provider_lakets.jobs.options import JOBS

__all__ = ["JOBS", "lakets_dags", "lakets_task_group"]
