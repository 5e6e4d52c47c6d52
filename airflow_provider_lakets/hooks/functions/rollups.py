"""The functions of LakeTS about RollUps."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_lakets.exceptions import LakeTSArgumentError
from airflow_provider_lakets.hooks._calls import LakeTSCalls, Row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class LakeTSRollups(LakeTSCalls):
    """Base of LakeTSHook: RollUps, under the names of their functions."""

    def create_rollup(
        self,
        name: str,
        query: str,
        *,
        bucket_interval: str | timedelta = "1 hour",
        source_table: str | None = None,
        source_schema: str = "public",
        depends_on: Sequence[str] = (),
    ) -> int:
        """
        Create, load and register a RollUp, and return its id.

        :param name: The name of the RollUp; its table will be ``public._rollup_<name>``.
        :param query: The query of the RollUp; one column is the bucket.
        :param bucket_interval: The length of a bucket.
        :param source_table: The ChronoTable it reads. LakeTS 0.1.x needs it even if the query
            reads only other RollUps; later versions accept None.
        :param source_schema: The schema of that table.
        :param depends_on: The names of the RollUps it reads.
        """
        return int(
            self.call_value(
                "create_rollup",
                repeatable=False,
                p_name=name,
                p_query=query,
                p_bucket_interval=bucket_interval,
                p_source_table=source_table,
                p_source_schema=source_schema,
                p_depends_on=list(depends_on),
            )
        )

    def drop_rollup(self, name: str) -> None:
        """Drop a RollUp and its table."""
        self.call("drop_rollup", repeatable=False, p_name=name)

    def enable_rollup_invalidation(self, name: str) -> None:
        """Track changes of a RollUp's source."""
        self.call("enable_rollup_invalidation", p_rollup_name=name)

    def disable_rollup_invalidation(self, name: str) -> None:
        """Stop tracking changes of a RollUp's source."""
        self.call("disable_rollup_invalidation", p_rollup_name=name)

    def refresh_rollup(self, name: str, *, force: bool = False) -> bool:
        """
        Refresh one RollUp; return False if it is too early or another session is refreshing it.

        :param name: The RollUp.
        :param force: Refresh even if its refresh_lag has not passed.
        """
        return bool(self.call_value("refresh_rollup", p_name=name, **self.forcing(name, force=force)))

    def forcing(self, name: str, *, force: bool) -> Row:
        """Return the arguments of ``refresh_rollup`` for ``force``, to ignore the refresh_lag."""
        if not force:
            return {}
        if not self.supports("refresh_rollup", "p_force"):
            raise LakeTSArgumentError(
                f"Refreshing RollUp {name!r} by force needs LakeTS 0.2 or later. Upgrade with "
                "`lakets install`, or lower its refresh_lag."
            )
        return {"p_force": True}

    def refresh_rollup_cascade(self, name: str | None = None) -> list[Row]:
        """
        Refresh a RollUp, those it reads and those that read it, in one transaction.

        :meth:`~airflow_provider_lakets.hooks.lakets.LakeTSHook.refresh` uses a transaction for each
        RollUp.

        :param name: The RollUp; None for all.
        """
        return self.call("refresh_rollup_cascade", p_name=name)

    def set_refresh_lag(self, name: str, refresh_lag: str | timedelta) -> None:
        """Set for how long after a refresh of a RollUp further refreshes are skipped."""
        self.call("set_refresh_lag", p_name=name, p_refresh_lag=refresh_lag)

    def create_rollup_view(self, name: str, raw_query: str) -> None:
        """
        Create the view of a RollUp that computes the newest buckets from its source.

        :param name: The RollUp.
        :param raw_query: The query that computes a bucket, as in the RollUp.
        """
        self.call("create_rollup_view", repeatable=False, p_name=name, p_raw_query=raw_query)

    def invalidate_rollup_range(self, name: str, start: datetime, end: datetime) -> int:
        """Mark the buckets of a range dirty and return how many; the range excludes its end."""
        if self.is_older():
            end = end - timedelta(microseconds=1)
        return int(self.call_value("invalidate_rollup_range", p_name=name, p_from=start, p_to=end))

    def show_rollups(self) -> list[Row]:
        """Show the RollUps with the columns of the installed LakeTS."""
        return self.call("show_rollups")

    def show_rollup_dag(self) -> list[Row]:
        """Show the RollUps in refresh order; raises on a cycle."""
        return self.call("show_rollup_dag")
