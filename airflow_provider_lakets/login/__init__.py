"""Logins to Lakebase: the identity, the endpoint, and a password for each login."""

from __future__ import annotations
