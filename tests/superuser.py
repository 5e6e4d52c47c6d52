"""Access to a local Lakebase without its gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from airflow_provider_lakets.local.client import LocalServer


def superuser(server: LocalServer) -> str:
    """Return the conninfo of the server's superuser, over its Unix socket."""
    return make_conninfo(
        host=str(server.folder / "pg"), port=5432, dbname="databricks_postgres", user="postgres"
    )
