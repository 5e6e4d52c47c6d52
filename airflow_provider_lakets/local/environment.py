"""Keep environment variables meant for other servers away from the local ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOST = "127.0.0.1"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def forget_other_postgres() -> None:
    """
    Remove libpq's variables (``PGSERVICE``, ``PGOPTIONS``, ...) from this process.

    Sessions with the embedded servers set all their options; libpq would add others from these.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def no_proxy_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the variables that exempt this machine from the caller's proxies, if there are any.

    :param environ: The environment of the caller.
    """
    if not any(text for name, text in environ.items() if name.lower() in _PROXIES):
        return {}
    hosts = (environ.get("NO_PROXY") or environ.get("no_proxy") or "").split(",")
    text = ",".join([*filter(None, hosts), *(() if _HOST in hosts else (_HOST,))])
    return {"NO_PROXY": text, "no_proxy": text}
