"""Hooks: Postgres sessions on Lakebase, and calls of LakeTS functions."""

from __future__ import annotations
