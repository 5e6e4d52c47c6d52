"""Links from a task to what it works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import BaseOperator


class LakebaseProjectLink(BaseOperatorLink):
    """The Lakebase project, or provisioned instance, in the Databricks workspace."""

    name = "Lakebase project"

    @property
    def xcom_key(self) -> str:
        """The XCom under which Airflow keeps the address for its UI."""
        return "lakebase_project_page"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """
        Return the address, or an empty text when the task does not know it.

        Airflow asks in the task's own process, at the end of each stretch of it, and stores the answer.
        Nothing may be raised here: in Airflow 3.1 the task would fail for it.

        :param operator: The task; of ours, or another that a plugin gave this link.
        :param ti_key: Which run of it.
        """
        try:
            page = getattr(operator, "project_page", lambda: None)()
            return page if page is not None else self._stored(ti_key) or ""
        except Exception as err:
            operator.log.debug("No link to the Lakebase project: %s", err)
            return ""

    def _stored(self, ti_key: Any) -> str | None:
        """Return what was known before a wait in the triggerer, after which there need be no login."""
        from airflow.sdk.execution_time.xcom import XCom

        page: str | None = XCom.get_value(ti_key=ti_key, key=self.xcom_key)
        return page
