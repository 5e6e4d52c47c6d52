"""The commands of `lakets`, one module each; cli.py imports a module when its command runs."""

from __future__ import annotations
