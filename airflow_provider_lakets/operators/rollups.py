"""Job 4: bring the RollUps up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.operators.base import LakeTSBaseOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class LakeTSRollupRefreshOperator(LakeTSBaseOperator):
    """
    Refresh RollUps as one cascade: each after those it reads, independent ones side by side.

    Returns a dict for each RollUp: ``name``, ``outcome`` (refreshed, unchanged, skipped, contended, failed),
    ``ms``, ``detail``. One that fails stops neither its siblings nor what was refreshed before; what reads
    it is skipped, and the task fails with the list.

    :param rollup: Refresh only this one and all that it reads; None means every RollUp. (templated)
    :param parallelism: How many to refresh at a time, each in a session of its own.
    :param force: Refresh although a RollUp's ``refresh_lag`` has not passed.
    """

    template_fields: Sequence[str] = ("rollup", "lakebase_conn_id")

    def __init__(
        self, *, rollup: str | None = None, parallelism: int = 4, force: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if parallelism < 1:
            raise ValueError(f"parallelism must be 1 or more, not {parallelism}")
        self.rollup = rollup
        self.parallelism = parallelism
        self.force = force

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return what became of each RollUp, in the order it happened."""
        with self.lakets(context) as hook:
            results = hook.refresh(self.rollup or None, parallelism=self.parallelism, force=self.force)
        return self.report(context, results)
