"""What monitors are told."""

from __future__ import annotations
