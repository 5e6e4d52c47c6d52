"""Monitoring: problems that need attention, and metrics."""

from __future__ import annotations
