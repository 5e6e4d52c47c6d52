"""The gateway: TLS, certificates, credentials, and who may log in to which endpoint."""

from __future__ import annotations
