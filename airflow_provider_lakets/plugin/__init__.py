"""The LakeTS page in Airflow: a read-only app at ``/lakets``, and its navigation entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from typing import Any

NAME = "LakeTS"
PREFIX = "/lakets"


class LakeTSPlugin(AirflowPlugin):
    """Registered by the entry point ``airflow.plugins``; loading it connects to nothing."""

    name = "lakets"
    # Without a leading slash the address is below the base_url of the API server.
    external_views = [  # noqa: RUF012 - Airflow declares it so
        {
            "name": NAME,
            "href": f"{PREFIX[1:]}/",
            "destination": "nav",
            "category": "browse",
            "url_route": "lakets",
        }
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # an attribute there
        """The app; only the API server reads this, so no other process imports FastAPI."""
        from airflow_provider_lakets.plugin.app import create_app

        return [{"app": create_app(), "name": NAME, "url_prefix": PREFIX}]
