"""Create the secrets of this Airflow once, in a volume: no image or compose file has one."""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path

FOLDER = Path("/opt/lakets/secrets")
DATABASE = "postgresql+psycopg2://airflow:{password}@postgres/airflow"


def keep(name: str, value: str) -> str:
    """
    Return the content of a file; if the file is missing, create it with a value.

    :param name: The file; only its owner may read it.
    :param value: The content of a new file.
    """
    path = FOLDER / name
    if not path.exists():
        # Under another name first, so that a killed run leaves no partial secret.
        fresh = path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(value)
        fresh.replace(path)
    return path.read_text()


def main() -> None:
    """Create the missing secrets."""
    keep("fernet_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    keep("api_secret_key", secrets.token_urlsafe(32))
    keep("jwt_secret", secrets.token_urlsafe(64))
    keep("users.json", json.dumps({"admin": secrets.token_urlsafe(16)}))
    password = keep("postgres_password", secrets.token_urlsafe(32))
    keep("sql_alchemy_conn", DATABASE.format(password=password))


if __name__ == "__main__":
    main()
