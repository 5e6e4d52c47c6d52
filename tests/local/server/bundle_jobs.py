"""
The four jobs as in LakeTS' Databricks bundle, without Airflow and without this package.

The identity comes from DATABRICKS_HOST, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, the role
from LAKETS_PG_ROLE or that identity.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
from databricks.sdk import WorkspaceClient
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from collections.abc import Callable

    Cursor = psycopg.Cursor[dict[str, Any]]


def connect(project: str, port: int) -> psycopg.Connection[dict[str, Any]]:
    """Find the read-write endpoint of the default branch, mint a credential and log in with it."""
    workspace = WorkspaceClient()
    branches = workspace.postgres.list_branches(parent=f"projects/{project}")
    branch = next(one for one in branches if one.status and one.status.default)
    for found in workspace.postgres.list_endpoints(parent=str(branch.name)):
        endpoint = workspace.postgres.get_endpoint(name=str(found.name))
        status = endpoint.status
        if status and status.endpoint_type and status.endpoint_type.value == "ENDPOINT_TYPE_READ_WRITE":
            break
    else:
        raise LookupError(f"{branch.name} has no read-write endpoint")
    credential = workspace.postgres.generate_database_credential(endpoint=str(endpoint.name))
    assert status.hosts is not None
    return psycopg.connect(
        host=status.hosts.host,
        port=port,
        dbname="databricks_postgres",
        user=os.environ.get("LAKETS_PG_ROLE") or workspace.current_user.me().user_name,
        password=credential.token,
        sslmode="require",
        options="-c statement_timeout=600000 -c lock_timeout=30000",
        autocommit=True,
        row_factory=dict_row,
    )


def partitions(cursor: Cursor) -> int:
    """Create the chunks around now, table by table; return how many."""
    tables = cursor.execute("SELECT id FROM lakets._chronotable_registry").fetchall()
    return sum(
        one(cursor, "SELECT lakets._ensure_partitions(p_chronotable_id => %s) AS n", table["id"])
        for table in tables
    )


def tiering(cursor: Cursor) -> int:
    """Flag what is durable of every table with a policy that tiers; return how many chunks."""
    tables = cursor.execute(
        "SELECT tab.id, tab.schema_name, tab.table_name FROM lakets._chronotable_registry AS tab"
        " JOIN lakets._policy_registry AS pol ON pol.chronotable_id = tab.id"
        " WHERE pol.policy_type IN ('tiering', 'tiered_retention') AND pol.enabled = TRUE"
    ).fetchall()
    flagged = 0
    for table in tables:
        chunks = cursor.execute(
            "SELECT * FROM lakets._get_chunks_to_tier(%s, %s)", [table["table_name"], table["schema_name"]]
        ).fetchall()
        flagged += sum(one(cursor, "SELECT lakets.tier_chunk(%s) AS n", row["chunk_name"]) for row in chunks)
        cursor.execute(
            "UPDATE lakets._policy_registry SET last_run_at = now()"
            " WHERE chronotable_id = %s AND policy_type = 'tiering'",
            [table["id"]],
        )
    return flagged


def retention(cursor: Cursor) -> int:
    """Drop what is past retention of every table with such a policy; return how many chunks."""
    tables = cursor.execute(
        "SELECT tab.schema_name, tab.table_name FROM lakets._chronotable_registry AS tab"
        " JOIN lakets._policy_registry AS pol ON pol.chronotable_id = tab.id"
        " WHERE pol.policy_type IN ('retention', 'tiered_retention') AND pol.enabled = TRUE"
    ).fetchall()
    return sum(
        one(cursor, "SELECT lakets.execute_retention(%s, %s) AS n", row["table_name"], row["schema_name"])
        for row in tables
    )


def rollups(cursor: Cursor) -> int:
    """Refresh every RollUp in their order; return how many were refreshed."""
    done = cursor.execute("SELECT * FROM lakets.refresh_rollup_cascade()").fetchall()
    return sum(row["refreshed"] for row in done)


def one(cursor: Cursor, query: str, *parameters: Any) -> int:
    row = cursor.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return int(row["n"])


JOBS: dict[str, Callable[[Cursor], int]] = {
    "partitions": partitions,
    "tiering": tiering,
    "retention": retention,
    "rollups": rollups,
}
