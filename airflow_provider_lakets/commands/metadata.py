"""Airflow's metadata database, for commands on a machine that may have none."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def make_no_airflow() -> None:
    """
    Keep Airflow, which looks for connections in its database, from making a home and a database.

    Has an effect only before Airflow is first imported, and only where neither the environment nor
    the home names a database. Such a home is replaced by one that is removed at the end.
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
