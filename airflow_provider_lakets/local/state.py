"""The state file of a local Lakebase for its clients; only the owner may read it."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.api.workspace import Principal

if TYPE_CHECKING:
    from pathlib import Path

STATE_FILE = "lakebase.json"


class StateError(LakeTSError):
    """The state file of a local Lakebase cannot be read."""


@dataclass
class State:
    """
    Identities and ports: identities stay the same in all runs, ports if possible.

    :param owner: The service principal that owns the database.
    :param jobs: The service principal with the rights that the jobs need, and no others.
    :param admin_token: The token for the routes that set faults.
    :param pid: The process id of the server; 0 if none runs.
    """

    owner: Principal = field(default_factory=lambda: Principal("owner"))
    jobs: Principal = field(default_factory=lambda: Principal("airflow-jobs"))
    admin_token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    endpoint: str = ""
    url: str = ""
    port: int = 0
    api_port: int = 0
    pid: int = 0

    @classmethod
    def load(cls, folder: Path) -> State:
        """Return the state of the folder, or a new one."""
        path = folder / STATE_FILE
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            for who in ("owner", "jobs"):
                kept[who] = Principal(**kept[who])
            return cls(**kept)
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except OSError as err:
            raise StateError(f"{path} cannot be read: {err.strerror}. Check its owner.") from err
        except (ValueError, TypeError, KeyError) as err:
            raise StateError(
                f"{path} is not the state file of a local Lakebase. Remove it and start the Lakebase again, "
                "which creates new identities."
            ) from err

    def ready(self, folder: Path, *, pid: int, url: str, port: int, api_port: int) -> None:
        """Publish the addresses of the running server."""
        self.pid, self.url, self.port, self.api_port = pid, url, port, api_port
        self._save(folder)

    def gone(self, folder: Path) -> None:
        """Publish that the server no longer runs."""
        self.pid = 0
        self._save(folder)

    def env(self, folder: Path, principal: Principal | None = None) -> dict[str, str]:
        """Return the environment variables for logins, as the owner or as another principal."""
        who = principal or self.owner
        authority = str(folder.absolute() / "ca.pem")
        return {
            "DATABRICKS_HOST": self.url,
            "DATABRICKS_CLIENT_ID": who.client_id,
            "DATABRICKS_CLIENT_SECRET": who.client_secret,
            "LAKETS_LAKEBASE_ENDPOINT": self.endpoint,
            "PGPORT": str(self.port),
            "PGSSLROOTCERT": authority,
            **({"REQUESTS_CA_BUNDLE": authority} if self.url.startswith("https:") else {}),
        }

    def _save(self, folder: Path) -> None:
        path = folder / STATE_FILE
        fresh = path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
            json.dump(asdict(self), out, indent=2)
        fresh.replace(path)
