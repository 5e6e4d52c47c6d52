"""Airflow's metadata database, for commands on a machine that may have none."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def use_temporary_metadata() -> None:
    """
    Prevent Airflow from creating its home and database when it looks up connections.

    It has an effect only before the first import of Airflow, and only if neither the environment
    nor the home defines a database. The database, and a missing home, are then in a temporary
    folder, which is removed at exit.
    """
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    is_named = any("SQL_ALCHEMY_CONN" in name or name == "AIRFLOW_CONFIG" for name in os.environ)
    if is_named or (home / "airflow.cfg").exists() or (home / "airflow.db").exists():
        return
    folder = tempfile.mkdtemp(prefix="lakets-airflow-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{folder}/airflow.db"
    if not home.exists():
        os.environ["AIRFLOW_HOME"] = folder
