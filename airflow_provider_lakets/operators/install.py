"""Install LakeTS into a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.operators.base import LakeTSBaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class LakeTSInstallOperator(LakeTSBaseOperator):
    """
    Install or upgrade LakeTS in the connection's database.

    Runs one transaction that is safe to repeat and to run over LakeTS 0.1.x. The role needs CREATE
    on the database for a first install. Returns a dict with the versions ``before`` (None if there
    was none) and ``after``, and ``notes``: what was changed and what is left to do.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the version before and after."""
        with self.lakets(context) as hook:
            return hook.install().as_dict()
