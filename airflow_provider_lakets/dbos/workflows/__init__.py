"""Workflows: their ids, how they are started, how they ended, what is done to them."""

from __future__ import annotations
