"""What the `lakets` command does, one module a command; cli.py imports each when it is asked for."""

from __future__ import annotations
