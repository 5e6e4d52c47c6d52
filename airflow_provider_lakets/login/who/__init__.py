"""The identity that requests database credentials, and where it is stored."""

from __future__ import annotations
