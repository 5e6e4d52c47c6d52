"""Sensors: wait until data is durable, or until a RollUp is fresh."""

from __future__ import annotations
