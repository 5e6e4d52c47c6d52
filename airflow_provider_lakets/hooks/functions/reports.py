"""The functions of LakeTS that say why a chunk is where it is; they change nothing."""

from __future__ import annotations

from airflow_provider_lakets.hooks._calls import LakeTSCalls, Row


class LakeTSReports(LakeTSCalls):
    """Base of LakeTSHook: reports, under the names of their functions; LakeTS 0.1.x has none of them."""

    def explain_durability(self, chunk_name: str) -> str | None:
        """Return why a chunk is not proved durable in Unity Catalog; None if it is."""
        reason = self.call_value("explain_durability", p_chunk_name=chunk_name)
        return None if reason is None else str(reason)

    def retention_report(self, table_name: str, *, schema_name: str = "public") -> list[Row]:
        """List the chunks of a table that are past retention, with what keeps each of them."""
        return self.call("retention_report", p_table_name=table_name, p_schema_name=schema_name)

    def trim_report(self, table_name: str, *, schema_name: str = "public") -> list[Row]:
        """List the dropped chunks whose rows are still in the shadow, with what keeps them there."""
        return self.call("trim_report", p_table_name=table_name, p_schema_name=schema_name)

    def pending_repairs(self) -> list[Row]:
        """List what is wrong in this database, for instance after an upgrade, with the repair for each."""
        return self.call("pending_repairs")
