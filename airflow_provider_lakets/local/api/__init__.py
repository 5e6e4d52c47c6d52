"""The REST API of the local Lakebase: the workspace it tells of, and the faults it can be told to have."""

from __future__ import annotations
