"""Marks of tests that need what not every supported environment has."""

from __future__ import annotations

import pytest
import sqlalchemy

# SQLAlchemy knows psycopg 3 from 2.0 on, and Airflow 3.1 pins 1.4: there, an engine is refused,
# which tests/unit/test_lakebase_psycopg.py tests everywhere.
SQLALCHEMY_2 = pytest.mark.skipif(
    sqlalchemy.__version__.startswith("1."), reason="an engine on psycopg 3 needs SQLAlchemy 2"
)
