"""Where a program's DBOS database is: what its author says, or else the environment."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_lakets.exceptions import LakebaseSettingError
from airflow_provider_lakets.login import pasted

# As the documentation of DBOS names them.
URL_VARIABLE = "DBOS_SYSTEM_DATABASE_URL"
ENDPOINT_VARIABLE = "DATABRICKS_LAKEBASE_ENDPOINT"
OUR_VARIABLE = "LAKETS_LAKEBASE_ENDPOINT"

# SQLAlchemy's way to name a driver in a URL. Here it is psycopg 3, whatever the URL says: as in
# DBOS.
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
    Return where to log in.

    :param database_url: A connection string; None for that of the environment.
    :param endpoint: The resource name of an endpoint; None for that of the environment.
    :param options: Settings for the server, in libpq's form; those in the string win.
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
        # What the author says beside a native password is a place too, but the environment's is not
        # asked.
        if found.get("password") and found.get("host") and place_from == ENDPOINT_VARIABLE:
            extra.pop("endpoint")
    # Of settings that are there twice the server takes the last.
    extra["options"] = " ".join(filter(None, [options, extra.get("options")]))
    name = url_from if url is not None else place_from
    return ProgramConnection(conn_id=name, extra=json.dumps(extra), **found)


def _first(given: str | None, name: str, variable: str) -> tuple[str | None, str]:
    """Return what was given, or else what the environment says, and which of them it is."""
    if given is not None:
        if not given.strip():
            raise LakebaseSettingError(f"{name} is empty. Leave it out for {variable} of the environment.")
        return given, name
    return os.environ.get(variable, "").strip() or None, variable
