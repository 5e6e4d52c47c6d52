"""Hooks: a Postgres session on Lakebase, and the LakeTS calls over it."""

from __future__ import annotations
