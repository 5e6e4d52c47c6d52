"""Job 3: give the space of chunks back that are past retention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.operators.base import LakeTSBaseOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class LakeTSRetentionOperator(LakeTSBaseOperator):
    """
    Drop the chunks of one ChronoTable that are past its retention from Lakebase.

    A synced table loses only what is proved durable in Unity Catalog, where nothing is ever deleted.
    Returns a dict: ``name``, ``outcome`` (dropped, deferred, unchanged, contended, failed), ``dropped``
    (chunks), ``deferred`` (chunks past retention that stay, with the reason), ``detail``.

    :param table: The ChronoTable as ``schema.table``. (templated)
    :param schema: Its schema, when ``table`` is the bare name. (templated)
    :param force: Drop even what is not proved durable: data may be lost for good.
    """

    template_fields: Sequence[str] = ("table", "schema", "lakebase_conn_id")
    mapped_name = "{{ task.table }}"

    def __init__(self, *, table: str, schema: str | None = None, force: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.schema = schema
        self.force = force

    def execute(self, context: Context) -> dict[str, Any]:
        """Return what was dropped and what was deferred."""
        name = f"{self.schema}.{self.table}" if self.schema else self.table
        with self.lakets(context) as hook:
            result = hook.retain(name, force=self.force)
        for chunk in result.dropped:
            self.log.info("Dropped %s", chunk)
        for stays in result.deferred:
            self.log.info("Deferred %s: %s", stays.chunk, stays.reason)
        (plain,) = self.report(context, [result])
        return plain
