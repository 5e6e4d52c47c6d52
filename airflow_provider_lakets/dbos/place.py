"""Find the DBOS database of a program, from its arguments or the environment."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_lakets.exceptions import LakebaseSettingError
from airflow_provider_lakets.login import pasted

# The names in the documentation of DBOS.
URL_VARIABLE = "DBOS_SYSTEM_DATABASE_URL"
ENDPOINT_VARIABLE = "DATABRICKS_LAKEBASE_ENDPOINT"
OUR_VARIABLE = "LAKETS_LAKEBASE_ENDPOINT"

# The driver in a URL of SQLAlchemy. It is ignored: the driver is always psycopg 3, as in DBOS.
_DRIVER = re.compile(r"\A(\s*postgres(?:ql)?)\+\w+(?=://)", re.IGNORECASE)


@dataclass
class ProgramConnection:
    """A connection of a program without Airflow; the fields are those of an Airflow connection."""

    conn_id: str
    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    schema: str | None = None
    extra: str = "{}"

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The extra as an object."""
        found: dict[str, Any] = json.loads(self.extra)
        return found


def find_connection(
    database_url: str | None = None, endpoint: str | None = None, *, options: str = ""
) -> ProgramConnection:
    """
    Return the connection of a program.

    :param database_url: A connection string; None for that of the environment.
    :param endpoint: The resource name of an endpoint; None for that of the environment.
    :param options: Settings for the server, in libpq's form; those in the string take precedence.
    """
    url, url_from = _first(database_url, "database_url", URL_VARIABLE)
    place, place_from = _first(endpoint, "endpoint", ENDPOINT_VARIABLE)
    if url is None and place is None and not os.environ.get(OUR_VARIABLE, "").strip():
        raise LakebaseSettingError(
            "No Lakebase is named. Give database_url or endpoint, or set one of the variables "
            f"{URL_VARIABLE} (a connection string, as the Lakebase console shows it) and {ENDPOINT_VARIABLE} "
            "(projects/<project>/branches/<branch>/endpoints/<endpoint>)."
        )
    found: dict[str, Any] = pasted.parse(_DRIVER.sub(r"\1", url), url_from) if url is not None else {}
    extra = dict(found.pop("extra", {}))
    if place is not None:
        extra.setdefault("endpoint", place)
        # With a host and a native password, the endpoint of the environment is ignored.
        if found.get("password") and found.get("host") and place_from == ENDPOINT_VARIABLE:
            extra.pop("endpoint")
    # If a setting occurs twice, the server uses the last value.
    extra["options"] = " ".join(filter(None, [options, extra.get("options")]))
    name = url_from if url is not None else place_from
    return ProgramConnection(conn_id=name, extra=json.dumps(extra), **found)


def _first(given: str | None, name: str, variable: str) -> tuple[str | None, str]:
    """Return the argument, or the variable of the environment, and the name of the source."""
    if given is not None:
        if not given.strip():
            raise LakebaseSettingError(f"{name} is empty. Omit it to use {variable} of the environment.")
        return given, name
    return os.environ.get(variable, "").strip() or None, variable
