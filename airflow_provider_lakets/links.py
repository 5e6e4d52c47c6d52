"""Links from a task to its Lakebase project and to its LakeTS page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from airflow.sdk import BaseOperatorLink

from airflow_provider_lakets.compat import conf

if TYPE_CHECKING:
    from typing import Any

    from airflow.sdk import BaseOperator


class LakebaseProjectLink(BaseOperatorLink):
    """The Lakebase project, or provisioned instance, in the Databricks workspace."""

    name = "Lakebase project"

    @property
    def xcom_key(self) -> str:
        """The XCom in which Airflow stores the address for its UI."""
        return "lakebase_project_page"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """
        Return the address, or an empty text if the task does not know it.

        Airflow calls this in the task's process, each time the task ends or defers, and stores the
        result. It must not raise: in Airflow 3.1 the task would fail.

        :param operator: The task; a LakeTS task, or another to which a plugin added this link.
        :param ti_key: The key of the task instance.
        """
        try:
            page = getattr(operator, "project_page", lambda: None)()
            return page if page is not None else self._stored(ti_key) or ""
        except Exception as err:
            operator.log.debug("No link to the Lakebase project: %s", err)
            return ""

    def _stored(self, ti_key: Any) -> str | None:
        """Return the link from before a deferral, because a resumed task may not log in."""
        from airflow.sdk.execution_time.xcom import XCom

        page: str | None = XCom.get_value(ti_key=ti_key, key=self.xcom_key)
        return page


class LakeTSPageLink(BaseOperatorLink):
    """The LakeTS page in Airflow, for the table or the RollUp of the task."""

    name = "LakeTS page"

    @property
    def xcom_key(self) -> str:
        """The XCom in which Airflow stores the address for its UI."""
        return "lakets_page"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """
        Return the address on this Airflow, or an empty text if it is not a LakeTS task.

        :param operator: The task, with rendered templates.
        :param ti_key: The key of the task instance.
        """
        conn_id = getattr(operator, "lakebase_conn_id", None)
        if not isinstance(conn_id, str):
            return ""
        below = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
        for kind in ("table", "rollup"):
            name = getattr(operator, kind, None)
            if isinstance(name, str) and name not in ("", "*"):
                name = _in_schema(name, operator) if kind == "table" else name
                return f"{below}/lakets/{kind}?{urlencode({'conn': conn_id, 'name': name})}"
        return f"{below}/lakets/?{urlencode({'conn': conn_id})}"


def _in_schema(table: str, operator: BaseOperator) -> str:
    schema = getattr(operator, "schema", None)
    if isinstance(schema, str) and schema:
        return f"{schema}.{table}"
    return table if "." in table else f"public.{table}"
