"""A Lakebase on your laptop: an embedded Postgres and the feed into Delta tables (extra: ``local``)."""

from __future__ import annotations
