"""Who am I: the identity that asks for database credentials, and where Airflow keeps it."""

from __future__ import annotations
