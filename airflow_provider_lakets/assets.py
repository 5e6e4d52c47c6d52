"""
Assets to schedule DAGs on: a refreshed RollUp, or a ChronoTable with newly tiered chunks.

An asset is named after the Airflow connection, ``lakets://<connection>/rollup/<name>`` and
``lakets://<connection>/tiered/<schema>/<table>``. DAG authors know the connection, it is not
secret, and it stays the same if the project, the endpoint or the host differs between environments.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.sdk import Asset, AssetAlias

log = logging.getLogger(__name__)

SCHEME = "lakets"
DEFAULT_CONN_ID = "lakebase_default"

# Names of the asset aliases of lakebase_default; for other connections the id is appended.
ROLLUPS = "lakets-rollups"
TIERED = "lakets-tiered"

# The number of names after each kind.
_KINDS = {"rollup": 1, "tiered": 2}
_FORMS = "lakets://<connection>/rollup/<name> or lakets://<connection>/tiered/<schema>/<table>"


def rollup_asset(name: str, *, lakebase_conn_id: str = DEFAULT_CONN_ID, **options: Any) -> Asset:
    """
    Return the asset of a RollUp; it has an event whenever a refresh changes the RollUp.

    :param name: The RollUp.
    :param lakebase_conn_id: The connection of type ``lakebase`` that the jobs use.
    :param options: Other arguments of :class:`airflow.sdk.Asset`; use the same ones everywhere.
    """
    return _asset(lakebase_conn_id, ["rollup", name], options)


def tiered_asset(table: str, *, lakebase_conn_id: str = DEFAULT_CONN_ID, **options: Any) -> Asset:
    """
    Return the asset of a ChronoTable's tiered chunks; it has an event whenever chunks are tiered.

    :param table: The ChronoTable as ``schema.table``, or ``table`` for one in schema public.
    :param lakebase_conn_id: The connection of type ``lakebase`` that the jobs use.
    :param options: Other arguments of :class:`airflow.sdk.Asset`; use the same ones everywhere.
    """
    schema, _, name = table.rpartition(".")
    return _asset(lakebase_conn_id, ["tiered", schema or "public", name], options)


def rollup_alias(lakebase_conn_id: str = DEFAULT_CONN_ID) -> AssetAlias:
    """
    Return the alias of all RollUps of a connection. It has an event when one of them changes.

    :param lakebase_conn_id: The connection of type ``lakebase`` that the jobs use.
    """
    return _alias(ROLLUPS, lakebase_conn_id)


def tiered_alias(lakebase_conn_id: str = DEFAULT_CONN_ID) -> AssetAlias:
    """
    Return the alias of all ChronoTables of a connection. It has an event when chunks are tiered.

    :param lakebase_conn_id: The connection of type ``lakebase`` that the jobs use.
    """
    return _alias(TIERED, lakebase_conn_id)


def create_asset(*, rollup: str | None = None, table: str | None = None, **options: Any) -> Asset:
    """
    Return the asset of a RollUp or of a table's tiered chunks, for Airflow's hook lineage.

    :param rollup: The RollUp.
    :param table: The ChronoTable, instead of a RollUp.
    :param options: As for :func:`rollup_asset`.
    """
    if (rollup is None) == (table is None):
        raise ValueError("give rollup or table: one of them, and not both")
    return tiered_asset(table, **options) if table is not None else rollup_asset(rollup or "", **options)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Normalise a ``lakets://`` URI; a URI that names no LakeTS asset is an error.

    :param uri: The split URI, from which Airflow has removed the user name and password.
    """
    kind, *names = [unquote(part) for part in uri.path.split("/")[1:]] or [""]
    if not uri.netloc or _KINDS.get(kind) != len(names) or not all(names):
        raise ValueError(f"{uri.geturl()!r} names no asset of LakeTS: write {_FORMS}")
    path = "/".join(["", *(quote(part, safe="") for part in (kind, *names))])
    return uri._replace(scheme=SCHEME, netloc=quote(unquote(uri.netloc), safe=""), path=path, query="")


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset | None:
    """
    Return the Postgres table of an asset as an OpenLineage dataset.

    :param asset: The asset.
    :param lineage_context: The hook that recorded the asset; used if it is a LakebaseHook.
    """
    from airflow_provider_lakets.hooks.lakebase import LakebaseHook
    from airflow_provider_lakets.lineage import dataset, rollup_table

    conn_id, kind, *names = parse(asset.uri)
    hook = lineage_context if isinstance(lineage_context, LakebaseHook) else LakebaseHook(conn_id)
    table = rollup_table(names[0]) if kind == "rollup" else ".".join(names)
    return dataset(hook, table)


def parse(uri: str) -> list[str]:
    """Return the connection id, the kind and the names that make up the URI of an asset."""
    parts = sanitize_uri(urlsplit(uri))
    return [unquote(part) for part in (parts.netloc, *parts.path.split("/")[1:])]


def _asset(conn_id: str, names: list[str], options: dict[str, Any]) -> Asset:
    from airflow.sdk import Asset

    if "name" in options or "uri" in options:
        raise ValueError("the name of a LakeTS asset is its URI; under another name it has no events")
    path = "/".join(quote(part, safe="") for part in (conn_id, *names))
    return Asset(uri=f"{SCHEME}://{path}", **{"group": _group(conn_id), **options})


def _alias(name: str, conn_id: str) -> AssetAlias:
    from airflow.sdk import AssetAlias

    suffix = "" if conn_id == DEFAULT_CONN_ID else f"-{quote(conn_id, safe='')}"
    return AssetAlias(f"{name}{suffix}", group=_group(conn_id))


def _group(conn_id: str) -> str:
    """Return the asset group of a connection, which groups its assets in Airflow's list."""
    return f"{SCHEME}-{quote(conn_id, safe='')}"
