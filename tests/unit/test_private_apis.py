"""The private interfaces of other packages that we use; a new version may remove them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import uvicorn
from airflow.providers.databricks.hooks.databricks_base import BaseDatabricksHook

import airflow_provider_lakets

PACKAGE = Path(airflow_provider_lakets.__file__).parent

# The module that uses each, and why there is no public way.
USED = {
    # The token of a Databricks connection, for every kind of login that Airflow's hook knows.
    ("_get_token", "login/who/other_identities.py"): (BaseDatabricksHook, {"raise_error"}),
    ("_get_aad_headers", "login/who/other_identities.py"): (BaseDatabricksHook, set[str]()),
    # The public serve() installs signal handlers in the process.
    ("_serve", "local/server.py"): (uvicorn.Server, {"sockets"}),
}


@pytest.mark.parametrize(("name", "file"), USED, ids=[name for name, _ in USED])
def test_a_private_method_is_there_and_used_in_one_place(name: str, file: str) -> None:
    owner, arguments = USED[name, file]

    users = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(rf"(?<!self)\.{name}\(", path.read_text())
    ]

    assert users == [file]
    assert arguments <= set(inspect.signature(getattr(owner, name)).parameters)
