"""
Find which version of a program would run a workflow, and whether a program of it is connected.

A workflow without a version runs only on the latest registered version, even if that was a trial
that ended long ago and only an older version runs. A workflow that has begun keeps its version. In
both cases it could wait forever, without any error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.dbos.sessions import PREFIX, session_name
from airflow_provider_lakets.exceptions import DBOSWorkflowError, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbos import WorkflowStatus

    from airflow_provider_lakets.dbos.hook import DBOSHook

_SESSIONS = """
SELECT DISTINCT activity.application_name
  FROM pg_catalog.pg_stat_activity AS activity
 WHERE activity.datname = pg_catalog.current_database()
   AND pg_catalog.starts_with(activity.application_name, %s)
"""


def check_version_runs(hook: DBOSHook, application: str | None, version: str | None = None) -> None:
    """
    Refuse a version that no program runs while programs of other versions of the application do.

    If no program runs at all, the workflow may wait in its queue. Programs with an engine that does
    not name its sessions after the version are not found.

    :param application: The application; None for any.
    :param version: The version that would run the workflow; None for the latest one.
    """
    wanted, others = _connected(hook, application, version)
    if others:
        raise wrapped(
            DBOSWorkflowError,
            f"The workflow would wait for a program of version {wanted!r}, which "
            f"{'it has begun with' if version else 'is the latest registered'}, but none is connected. "
            f"There are programs of: {others}. Give one of these as app_version; or start a "
            f"program of {wanted!r}; or make another version the latest: in its program call "
            "DBOS.set_latest_application_version(version).",
        )


def why_stuck(hook: DBOSHook, status: WorkflowStatus) -> str | None:
    """Return why a workflow does not continue if no program of its version is connected."""
    if status.status != "PENDING" or not status.app_version:
        return None
    wanted, others = _connected(hook, hook.application or status.application_name, status.app_version)
    if not others:
        return None
    return (
        f"It has begun with version {wanted!r} of its program, and only that version continues it. None "
        f"is connected; there are programs of: {others}. Start a program of {wanted!r}; or cancel the "
        "workflow and run it again with another app_version, by DBOSForkOperator or on_terminal='rewind'."
    )


def _connected(hook: DBOSHook, application: str | None, version: str | None) -> tuple[str, str]:
    """Return the wanted version and, if it is not connected, the connected ones as text."""
    owned = _registered(hook, application)
    wanted = [version] if version else _latest(owned, application)
    if {name for name, _ in owned} <= {*wanted}:
        return wanted[0] if wanted else "", ""
    found = {row[0] for row in hook.rows(_SESSIONS, "Looking for programs of DBOS", PREFIX)}
    alive = [name for name, _ in owned if session_name(name) in found]
    if any(session_name(name) in found for name in wanted):
        alive = []
    return wanted[0], ", ".join(map(repr, alive))


def _registered(hook: DBOSHook, application: str | None) -> list[tuple[str, str | None]]:
    """Return the versions that were ever started, the latest first, each with its application."""
    with hook.doing("Looking up the versions of a DBOS program") as client:
        found = client.list_application_versions()
    owned = [(one["version_name"], one.get("application_name")) for one in found]
    return [one for one in owned if application is None or one[1] in (None, application)]


def _latest(owned: Sequence[tuple[str, str | None]], application: str | None) -> list[str]:
    """Return the latest version of each application; a version without owner belongs to all."""
    owners: set[str | None] = {application} if application else {owner for _, owner in owned if owner}
    latest = [next((name for name, of in owned if of in (None, owner)), None) for owner in owners or {None}]
    return [name for name in latest if name is not None]
