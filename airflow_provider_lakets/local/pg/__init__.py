"""The embedded Postgres server."""

from __future__ import annotations
