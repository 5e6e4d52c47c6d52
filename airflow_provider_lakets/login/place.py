"""Find the project, branch and endpoint in the connection, or in the environment otherwise."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_lakets.exceptions import LakebaseResolutionError, LakebaseSettingError
from airflow_provider_lakets.login.gate import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

# Keys in the extra of a connection that locate the database.
PLACE = ("project", "branch", "endpoint", "instance")

VARIABLE = "LAKETS_LAKEBASE_ENDPOINT"
HINT = (
    "Name a project, an endpoint (projects/<project>/branches/<branch>/endpoints/<endpoint>) or an instance "
    f"in the extra of the connection, or set {VARIABLE}."
)

_PATH = re.compile(
    r"projects/(?P<project>[^/]+)(?:/branches/(?P<branch>[^/]+)(?:/endpoints/(?P<endpoint>[^/]+))?)?"
)
_ID = re.compile(r"(?!\.\.?$)[^/?#%\\]+")


@dataclass(frozen=True)
class Place:
    """
    The ids of a project, a branch and an endpoint, or the name of a provisioned instance.

    ``is_environments`` is true if the project comes from the environment. A host in the connection
    takes precedence over it.
    """

    project: str | None = None
    branch: str | None = None
    endpoint: str | None = None
    instance: str | None = None
    is_environments: bool = False


def find_place(names: Mapping[str, str], conn_label: str) -> Place:
    """
    Return the place that a connection names; the environment completes it if no project is named.

    :param names: ``project``, ``branch``, ``endpoint`` and ``instance`` of the connection: ids, or
        full resource names that begin with ``projects/``.
    :param conn_label: The Airflow connection, for messages.
    """
    found: dict[str, str] = {}
    for kind, name in names.items():
        _add(found, _ids(kind, name, conn_label), f"{kind} in its extra", conn_label)
    if "instance" in found and len(found) > 1:
        raise LakebaseSettingError(
            f"{conn_label} contradicts itself: it names the provisioned instance {shown(found['instance'])}, "
            f"but {'a ' if 'project' in found else 'a part of a '}project, too. Remove one of them."
        )
    variable = os.environ.get(VARIABLE, "").strip()
    if not variable or "project" in found or "instance" in found:
        return _place(found)
    ids = _ids("endpoint", variable, f"{conn_label}, by {VARIABLE}")
    _add(found, ids, VARIABLE, conn_label)
    return _place(found, is_environments=True)


def _place(found: dict[str, str], *, is_environments: bool = False) -> Place:
    return Place(
        project=found.get("project"),
        branch=found.get("branch"),
        endpoint=found.get("endpoint"),
        instance=found.get("instance"),
        is_environments=is_environments,
    )


def _ids(kind: str, name: str, conn_label: str) -> dict[str, str]:
    """Split a resource name into ids."""
    if "/" in name and kind != "instance":
        match = _PATH.fullmatch(name.strip("/"))
        ids = {part: value for part, value in match.groupdict().items() if value} if match else {}
    else:
        ids = {kind: name}
    if ids and all(_ID.fullmatch(value) for value in ids.values()):
        return ids
    raise LakebaseResolutionError(f"{conn_label}: {kind} {shown(name)} is not a resource name. {HINT}")


def _add(found: dict[str, str], ids: Mapping[str, str], where: str, conn_label: str) -> None:
    for kind, value in ids.items():
        if found.setdefault(kind, value) != value:
            raise LakebaseSettingError(
                f"{conn_label} contradicts another setting: its extra names the {kind} "
                f"{shown(found[kind])}, but {where} names {shown(value)}. Remove one of them, or name the "
                "project in the extra."
            )
