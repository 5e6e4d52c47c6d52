"""The connections that the page may show, and their DAGs, from Airflow's serialized DAGs."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.compat import conf, stored_connection
from airflow_provider_lakets.exceptions import LakeTSError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT = "lakebase_default"
FIELD = "lakebase_conn_id"
KEPT_SECONDS = 60.0
_ID = re.compile(r"[\w.@+-]{1,250}")  # a template does not match
_OURS = "airflow_provider_lakets."


def named_in_configuration() -> list[str]:
    """Return the connections of ``[lakets] page_connections``, also if no DAG uses them."""
    text = conf.get("lakets", "page_connections", fallback="") or ""
    return [name for name in re.split(r"[,\s]+", text) if _ID.fullmatch(name)]


def connections_of(task: Mapping[str, Any]) -> set[str]:
    """
    Return the connections that a serialised task logs in with.

    :param task: The serialized task; a mapped task nests its arguments.
    """
    found = set(_values(task))
    if not found and str(task.get("_task_module", "")).startswith(_OURS):
        found = {DEFAULT}  # a mapped task is serialized without defaults
    return {one for one in found if _ID.fullmatch(one)}


def _values(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == FIELD and isinstance(value, str):
                yield value
            else:
                yield from _values(value)
    elif isinstance(node, list):
        for value in node:
            yield from _values(value)


class Uses:
    """Cache for a minute which DAGs use which connection, because there may be many DAGs."""

    def __init__(self) -> None:
        self._found: dict[str, set[str]] = {}
        self._until = 0.0

    def by_connection(self) -> dict[str, set[str]]:
        """Return the ids of the DAGs that use each connection."""
        if time.monotonic() >= self._until:
            self._found = _read_dags()
            self._until = time.monotonic() + KEPT_SECONDS
        return self._found


def _read_dags() -> dict[str, set[str]]:
    """Read the newest version of each DAG with a Lakebase connection or one of our operators."""
    from airflow.models.dag import DagModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session
    from sqlalchemy import Text, cast, func, or_, select

    newest = (
        select(SerializedDagModel.dag_id, func.max(SerializedDagModel.created_at).label("at"))
        .group_by(SerializedDagModel.dag_id)
        .subquery()
    )
    raw = cast(SerializedDagModel._data, Text)
    wanted = (
        select(SerializedDagModel)
        .join(
            newest,
            (newest.c.dag_id == SerializedDagModel.dag_id) & (newest.c.at == SerializedDagModel.created_at),
        )
        .join(DagModel, DagModel.dag_id == SerializedDagModel.dag_id)
        .where(DagModel.is_stale.is_(False))
        # If Airflow compresses the DAGs, each one must be read.
        .where(or_(raw.contains(FIELD), raw.contains(_OURS), SerializedDagModel._data.is_(None)))
    )
    found: dict[str, set[str]] = {}
    with create_session() as session:
        for row in session.scalars(wanted):
            dag = (row.data or {}).get("dag", {})
            for task in dag.get("tasks", ()):
                for conn_id in connections_of(task.get("__var", task)):
                    found.setdefault(conn_id, set()).add(row.dag_id)
    return found


def lakebase_connection(conn_id: str) -> Any:
    """
    Return a connection for the hook; None leaves it to the hook to find it.

    :raises LakeTSError: if it has another type; the page must not open such connections.
    """
    connection = stored_connection(conn_id)
    found = connection
    if found is None:
        from airflow_provider_lakets.hooks.lakebase import LakebaseHook

        found = LakebaseHook.get_connection(conn_id)
    if found.conn_type != "lakebase":
        raise LakeTSError(
            f"The connection {conn_id!r} is of type {found.conn_type!r}; the page shows only connections of "
            "type 'lakebase'."
        )
    return connection


def environment_default() -> list[str]:
    """Return lakebase_default if the environment defines it."""
    return [DEFAULT] if os.environ.get("LAKETS_LAKEBASE_ENDPOINT") else []
