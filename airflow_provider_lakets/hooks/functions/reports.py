"""The reports of LakeTS, which change nothing."""

from __future__ import annotations

from airflow_provider_lakets.hooks._calls import LakeTSCalls, Row
from airflow_provider_lakets.hooks.results import JobRun


class LakeTSReports(LakeTSCalls):
    """Base of LakeTSHook: reports, one method per SQL function; LakeTS 0.1.x has none of them."""

    def explain_durability(self, chunk_name: str) -> str | None:
        """Return why a chunk is not proved durable in Unity Catalog; None if it is."""
        reason = self.call_value("explain_durability", p_chunk_name=chunk_name)
        return None if reason is None else str(reason)

    def retention_report(self, table_name: str, *, schema_name: str = "public") -> list[Row]:
        """List the chunks of a table that are past retention, and what blocks the drop of each."""
        return self.call("retention_report", p_table_name=table_name, p_schema_name=schema_name)

    def trim_report(self, table_name: str, *, schema_name: str = "public") -> list[Row]:
        """List the dropped chunks whose rows are still in the shadow, and the reasons."""
        return self.call("trim_report", p_table_name=table_name, p_schema_name=schema_name)

    def pending_repairs(self) -> list[Row]:
        """List the problems in this database, for instance after an upgrade, with their repairs."""
        return self.call("pending_repairs")

    def job_history(
        self, job: str | None = None, *, relation: str | None = None, limit: int = 100
    ) -> list[JobRun]:
        """
        List the results of the jobs, newest first; Lakebase keeps them for 90 days.

        :param job: ``partitions``, ``tier``, ``retain`` or ``refresh``; None for all.
        :param relation: A ChronoTable as ``schema.table``, or a RollUp; None for all.
        :param limit: The largest number of results.
        """
        rows = self.call("job_history", p_job=job, p_relation=relation, p_limit=limit)
        return [JobRun(**row) for row in rows]
