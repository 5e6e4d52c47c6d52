"""Workflows: their ids, their start, their outcome, and how to control them."""

from __future__ import annotations
