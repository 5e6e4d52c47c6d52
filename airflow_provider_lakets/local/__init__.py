"""A Lakebase on your laptop: embedded Postgres and a feed into Delta tables (extra: ``local``)."""

from __future__ import annotations
