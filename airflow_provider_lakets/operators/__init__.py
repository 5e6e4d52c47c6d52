"""Operators: one for each job of LakeTS."""

from __future__ import annotations
