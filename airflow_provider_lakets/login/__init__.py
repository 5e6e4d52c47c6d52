"""Who am I, where is the endpoint, and a password for this login."""

from __future__ import annotations
