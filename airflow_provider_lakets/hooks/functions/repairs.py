"""The functions of LakeTS for a table that was changed without LakeTS."""

from __future__ import annotations

from airflow_provider_lakets.hooks._calls import LakeTSCalls


class LakeTSRepairs(LakeTSCalls):
    """Base of LakeTSHook: repairs, one method per SQL function; LakeTS 0.1.x has none of them."""

    def adopt_chronotable(self, table_name: str, *, schema_name: str = "public") -> int:
        """Accept the table that now has a ChronoTable's name as that ChronoTable; return its id."""
        return int(self.call_value("adopt_chronotable", p_table_name=table_name, p_schema_name=schema_name))

    def adopt_partitions(self, table_name: str, *, schema_name: str = "public") -> int:
        """
        Register partitions that were attached without LakeTS as chunks, and return how many.

        Each transaction registers as many as fit. An interrupted call can be repeated.
        """
        adopted = 0
        while more := int(
            self.call_value("adopt_partitions", p_table_name=table_name, p_schema_name=schema_name)
        ):
            adopted += more
        return adopted

    def compare_chunks(
        self,
        table_name: str,
        *,
        schema_name: str = "public",
        max_chunks: int = 20,
        only_expired: bool = False,
    ) -> int:
        """
        Compare chunks with their part of a shadow that may lack changes, and repair the shadow.

        :param table_name: The ChronoTable.
        :param schema_name: Its schema.
        :param max_chunks: Compare at most this many in this transaction.
        :param only_expired: Only chunks past retention.
        :return: How many were compared; 0 if none is left.
        """
        return int(
            self.call_value(
                "compare_chunks",
                p_table_name=table_name,
                p_schema_name=schema_name,
                p_max_chunks=max_chunks,
                p_only_expired=only_expired,
            )
        )

    def recheck_mirror(self, table_name: str, *, schema_name: str = "public") -> None:
        """
        Let the mirror of a ChronoTable or RollUp be compared, though nothing is known to be wrong.

        Nothing of the table is durable until the jobs, or :meth:`compare_chunks`, have compared it.

        :param table_name: The ChronoTable or RollUp.
        :param schema_name: Its schema.
        """
        self.call("recheck_mirror", p_table_name=table_name, p_schema_name=schema_name)

    def forget_chronotable(self, table_name: str, *, schema_name: str = "public") -> None:
        """Remove a ChronoTable from the registries; the table itself stays."""
        self.call("forget_chronotable", repeatable=False, p_table_name=table_name, p_schema_name=schema_name)

    def guard_chunks(self, table_name: str, *, schema_name: str = "public", max_chunks: int = 100) -> int:
        """
        Guard chunks as this version does it.

        These are chunks that can still be written directly, as after an install over LakeTS 0.1.x,
        and those that have the guard of an older version.

        :param table_name: The ChronoTable.
        :param schema_name: Its schema.
        :param max_chunks: Guard at most this many in this transaction.
        :return: How many were guarded; 0 if none is left.
        """
        return int(
            self.call_value(
                "guard_chunks", p_table_name=table_name, p_schema_name=schema_name, p_max_chunks=max_chunks
            )
        )
