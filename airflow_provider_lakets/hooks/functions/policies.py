"""The functions of LakeTS about policies: when chunks are tiered and dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.exceptions import LakeTSArgumentError
from airflow_provider_lakets.hooks._calls import LakeTSCalls, Row

if TYPE_CHECKING:
    from datetime import timedelta


class LakeTSPolicies(LakeTSCalls):
    """Base of LakeTSHook: policies, under the names of their functions."""

    def add_tiering_policy(
        self, table_name: str, after: str | timedelta, *, schema_name: str = "public"
    ) -> int:
        """Tier chunks older than an interval."""
        return int(
            self.call_value(
                "add_tiering_policy",
                repeatable=False,
                p_table_name=table_name,
                p_after=after,
                p_schema_name=schema_name,
            )
        )

    def add_retention_policy(
        self,
        table_name: str,
        drop_after: str | timedelta,
        *,
        schema_name: str = "public",
        trim_shadow: bool = False,
    ) -> int:
        """Drop chunks older than an interval, and optionally their rows in the shadow."""
        return int(
            self.call_value(
                "add_retention_policy",
                repeatable=False,
                p_table_name=table_name,
                p_drop_after=drop_after,
                p_schema_name=schema_name,
                **self._trimming("add_retention_policy", trim_shadow),
            )
        )

    def add_tiered_retention_policy(
        self,
        table_name: str,
        tier_after: str | timedelta,
        drop_after: str | timedelta,
        *,
        schema_name: str = "public",
        trim_shadow: bool = False,
    ) -> int:
        """Tier chunks at one age; drop them, and optionally their shadow rows, at a later one."""
        return int(
            self.call_value(
                "add_tiered_retention_policy",
                repeatable=False,
                p_table_name=table_name,
                p_tier_after=tier_after,
                p_drop_after=drop_after,
                p_schema_name=schema_name,
                **self._trimming("add_tiered_retention_policy", trim_shadow),
            )
        )

    def remove_tiering_policy(self, table_name: str, *, schema_name: str = "public") -> None:
        """Stop tiering chunks; a tiered retention policy stays."""
        self.call("remove_tiering_policy", p_table_name=table_name, p_schema_name=schema_name)

    def remove_retention_policy(self, table_name: str, *, schema_name: str = "public") -> None:
        """Stop dropping chunks; this removes a tiered retention policy as a whole."""
        self.call("remove_retention_policy", p_table_name=table_name, p_schema_name=schema_name)

    def show_tiering_policy(self, table_name: str, *, schema_name: str = "public") -> list[Row]:
        """List the policies by which chunks of a table are tiered."""
        return self.call("show_tiering_policy", p_table_name=table_name, p_schema_name=schema_name)

    def show_retention_policy(self, table_name: str, *, schema_name: str = "public") -> list[Row]:
        """List the policies by which chunks of a table are dropped."""
        return self.call("show_retention_policy", p_table_name=table_name, p_schema_name=schema_name)

    def _trimming(self, function: str, trim_shadow: bool) -> Row:
        if not trim_shadow:
            return {}
        if not self.supports(function, "p_trim_shadow"):
            raise LakeTSArgumentError(
                "Trimming the shadow needs LakeTS 0.2 or later. Upgrade with `lakets install`, or omit it."
            )
        return {"p_trim_shadow": True}
