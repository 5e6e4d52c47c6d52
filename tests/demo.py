"""The demo on three weeks of data instead of a year."""

from __future__ import annotations

from airflow_provider_lakets.local.demo.lifecycle import Scale

SMALL = Scale(21, {"weather": "7 days", "flights": "2 days"}, tier_days=5, drop_days=10)
