"""Sensors: wait for what LakeTS does elsewhere."""

from __future__ import annotations
