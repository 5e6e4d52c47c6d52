"""The provider's metadata; it imports nothing, because every Airflow process calls it."""

from __future__ import annotations

from typing import Any

_PACKAGE = "airflow_provider_lakets"
_INTEGRATION = "LakeTS on Databricks Lakebase"


def _text(label: str, description: str, **schema: Any) -> dict[str, Any]:
    """Describe an optional text field of the connection form; the keywords are JSON schema."""
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


# Everything here is stored in the connection's extra. None of it is secret: the only secret of a
# Lakebase connection is a native Postgres password, which has Airflow's own password field.
_CONNECTION_FIELDS = {
    "connection_string": _text(
        "Connection string",
        "As copied from the Lakebase console: postgresql://<role>@<host>/<database>?sslmode=require, without "
        "a password. It needs no other field. Contradictions with other fields are refused.",
        format="password",  # somebody may paste a string with a password
    ),
    "project": _text(
        "Lakebase project",
        "Project id. Its default branch and that branch's read-write endpoint are looked up. Leave empty "
        "if an endpoint or an instance is given.",
    ),
    "branch": _text("Branch", "Branch id. Default: the project's default branch."),
    "endpoint": _text(
        "Endpoint",
        "Endpoint to log in to: projects/<project>/branches/<branch>/endpoints/<endpoint>, or the last part "
        "of it if a project is given. Avoids the lookup. Default: the branch's read-write endpoint.",
    ),
    "instance": _text(
        "Provisioned instance", "Name of a Lakebase provisioned instance, instead of a project."
    ),
    "databricks_conn_id": _text(
        "Databricks connection",
        "Id of the Databricks connection whose identity mints the database credentials. Default: the "
        "environment (DATABRICKS_HOST, DATABRICKS_CLIENT_ID, DATABRICKS_CLIENT_SECRET and so on).",
    ),
    "sslmode": _text(
        "TLS mode",
        "libpq's sslmode. Default: verify-full, where the server must prove that it is the requested host. "
        "With require any server with a certificate can answer.",
        enum=["require", "verify-ca", "verify-full", "prefer", "allow", "disable", None],
    ),
    "sslrootcert": _text(
        "TLS root certificate",
        "File with the authorities for verify-ca and verify-full. Default: those of the operating system.",
    ),
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata in the form of Airflow's ``provider_info`` schema."""
    return {
        "package-name": "airflow-provider-lakets",
        "name": "LakeTS",
        "description": "The LakeTS time-series lifecycle on Databricks Lakebase Postgres.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.databricks.com/aws/en/oltp/",
                "tags": ["service"],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    f"{_PACKAGE}.operators.{job}"
                    for job in (
                        "install",
                        "partitions",
                        "tiering",
                        "retention",
                        "rollups",
                        "tables",
                        "alerts",
                        "approval",
                        "summary",
                    )
                ]
                + [f"{_PACKAGE}.dbos.{name}" for name in ("enqueue", "listing", "operators")],
            }
        ],
        "hooks": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    f"{_PACKAGE}.hooks.lakebase",
                    f"{_PACKAGE}.hooks.lakets",
                    f"{_PACKAGE}.dbos.hook",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    *(f"{_PACKAGE}.sensors.{job}" for job in ("durability", "rollups")),
                    f"{_PACKAGE}.dbos.sensor",
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    *(
                        f"{_PACKAGE}.triggers.{job}"
                        for job in ("durability", "tiering", "retention", "rollups")
                    ),
                    f"{_PACKAGE}.dbos.trigger",
                ],
            }
        ],
        "asset-uris": [
            {
                "schemes": ["lakets"],
                "handler": f"{_PACKAGE}.assets.sanitize_uri",
                "factory": f"{_PACKAGE}.assets.create_asset",
                "to_openlineage_converter": f"{_PACKAGE}.assets.convert_asset_to_openlineage",
            }
        ],
        "extra-links": [f"{_PACKAGE}.links.LakebaseProjectLink", f"{_PACKAGE}.links.LakeTSPageLink"],
        "connection-types": [
            {
                "connection-type": "lakebase",
                "hook-class-name": f"{_PACKAGE}.hooks.lakebase.LakebaseHook",
                "hook-name": "Databricks Lakebase",
                "conn-fields": _CONNECTION_FIELDS,
                "ui-field-behaviour": {
                    "hidden-fields": [],
                    "relabeling": {
                        "schema": "Database",
                        "login": "Postgres role",
                        "password": "Native Postgres password",
                    },
                    "placeholders": {
                        "host": "leave empty to look it up from the project",
                        "schema": "databricks_postgres",
                        "login": "leave empty for the Databricks identity",
                        "password": "leave empty for OAuth, with a new credential at each login",
                        "port": "5432",
                    },
                },
            }
        ],
    }
