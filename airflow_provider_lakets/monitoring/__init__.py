"""How things stand: what needs attention, and what monitors are told."""

from __future__ import annotations
