"""The REST API of the local Lakebase: its workspace, and the faults that can be set on it."""

from __future__ import annotations
