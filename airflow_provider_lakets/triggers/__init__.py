"""Triggers: what deferred tasks wait for, in the triggerer."""

from __future__ import annotations
