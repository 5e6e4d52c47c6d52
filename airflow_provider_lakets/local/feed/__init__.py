"""The change feed: decode the WAL and write Delta tables."""

from __future__ import annotations
