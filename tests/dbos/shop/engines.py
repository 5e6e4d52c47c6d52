"""The engines that a DBOS program can use on Lakebase."""

from __future__ import annotations

import os

import psycopg
import sqlalchemy as sa


def ours(url: str) -> sa.Engine:
    """Return the engine of this package."""
    from airflow_provider_lakets.dbos import create_lakebase_engine

    return create_lakebase_engine(url, pool_size=10)


def of_the_hook(url: str) -> sa.Engine:
    """Return the engine of an Airflow connection."""
    from airflow_provider_lakets.hooks.lakebase import LakebaseHook

    os.environ["AIRFLOW_CONN_SHOP"] = url.replace("postgresql://", "lakebase://", 1)
    return LakebaseHook("shop").get_sqlalchemy_engine()


def as_documented(url: str) -> sa.Engine:
    """Return an engine made as DBOS documents it for Lakebase: a token for each login."""
    from databricks.sdk import WorkspaceClient

    workspace = WorkspaceClient()

    def log_in() -> psycopg.Connection:
        credential = workspace.postgres.generate_database_credential(endpoint=os.environ["APP_ENDPOINT"])
        return psycopg.connect(url, password=credential.token)

    return sa.create_engine("postgresql+psycopg://", creator=log_in)


ENGINES = {"ours": ours, "hook": of_the_hook, "documented": as_documented}


def new_engine() -> sa.Engine:
    """Return an engine of the requested kind."""
    return ENGINES[os.environ.get("APP_ENGINE", "ours")](os.environ["APP_URL"])


engine = new_engine()
