"""A local Lakebase: embedded Postgres and a change feed into Delta tables (extra: ``local``)."""

from __future__ import annotations
