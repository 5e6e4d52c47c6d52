"""The page of a Lakebase project in the Databricks workspace."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROJECT = re.compile(r"/?projects/([^/]+)")


def project_page(host: str | None, names: Mapping[str, str | None]) -> str | None:
    """
    Return the address of the page, or None when too little is named.

    :param host: The workspace, as users write it.
    :param names: ``instance``, or ``endpoint`` or ``project``: an id or a resource name.
    """
    if not host:
        return None
    parts = urlsplit(host if "://" in host else f"https://{host}")
    # Rebuilt, so that nothing that somebody put before an @ gets into a link.
    address = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    if instance := names.get("instance"):
        return f"{address}/compute/database-instances/{quote(instance, safe='')}"
    for name in (names.get("endpoint"), names.get("branch"), names.get("project")):
        if match := _PROJECT.match(name or ""):
            return f"{address}/lakebase/projects/{quote(match[1], safe='')}"
    project = names.get("project")
    return f"{address}/lakebase/projects/{quote(project, safe='')}" if project else None
