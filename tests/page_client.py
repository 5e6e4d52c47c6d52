"""The page in this process, for a user with all rights."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # Importing Airflow's API server warns on the lowest packages.
    warnings.simplefilter("ignore", DeprecationWarning)
    from fastapi.testclient import TestClient

    from airflow_provider_lakets.plugin.app import create_app
    from airflow_provider_lakets.plugin.security import MAY_SEE_PLUGINS, dags_by_connection


def open_page(*connections: str) -> TestClient:
    """
    Return a client of a new page, without snapshots.

    :param connections: What it may show.
    """
    page = create_app()
    page.dependency_overrides = {
        MAY_SEE_PLUGINS.dependency: lambda: None,
        dags_by_connection: lambda: {name: [] for name in connections},
    }
    return TestClient(page)
