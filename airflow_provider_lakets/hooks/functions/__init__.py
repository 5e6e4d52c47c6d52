"""The public functions of LakeTS as typed methods, by concern."""

from __future__ import annotations
