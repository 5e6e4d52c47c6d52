"""What the DBOS operators and sensors share: one hook a task, errors that decide about retries."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_lakets.compat import HAS_RETRY_POLICY, fail
from airflow_provider_lakets.exceptions import PERMANENT, LakeTSError, wrapped
from airflow_provider_lakets.links import LakebaseProjectLink
from airflow_provider_lakets.operators._arguments import as_name
from airflow_provider_lakets.retries import LakeTSRetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_lakets.dbos.hook import DBOSHook, Serialization


class DBOSBaseOperator(BaseOperator):
    """
    Base of the DBOS operators.

    :param lakebase_conn_id: The connection of type ``lakebase``; its database holds the system
        tables of DBOS. (templated)
    :param dbos_schema: Their schema. (templated)
    :param application: Name of the DBOS application; needed where several share the system
        database. (templated)
    :param serialization: ``portable``, or ``native`` to write and read Python's pickle as well.
    """

    template_fields: Sequence[str] = ("lakebase_conn_id", "dbos_schema", "application")
    operator_extra_links = (LakebaseProjectLink(),)
    ui_color = "#dbeee0"

    def __init__(
        self,
        *,
        lakebase_conn_id: str = "lakebase_default",
        dbos_schema: str = "dbos",
        application: str | None = None,
        serialization: Serialization = "portable",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lakebase_conn_id = lakebase_conn_id
        self.dbos_schema = dbos_schema
        self.application = application
        self.serialization = serialization
        self._page: str | None = None
        if HAS_RETRY_POLICY and self.retry_policy is None:
            self.retry_policy = LakeTSRetryPolicy()

    @contextlib.contextmanager
    def dbos(self) -> Iterator[DBOSHook]:
        """Yield a hook whose schema exists; an error that no retry can fix fails the task."""
        from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]

        try:
            hook = self.make_hook()
            try:
                hook.check_schema()
                self._page = hook.project_page() or ""
                yield hook
            finally:
                hook.close()
        except (AirflowNotFoundException, *PERMANENT) as err:
            self.log.debug("Where the error came from", exc_info=True)
            fail(str(err))
        except LakeTSError as err:
            self.log.debug("Where the error came from", exc_info=True)
            raise type(err)(wrapped(str(err))) from None

    def make_hook(self) -> DBOSHook:
        """Return a hook; nothing is asked yet."""
        from airflow_provider_lakets.dbos.hook import DBOSHook

        return DBOSHook(
            as_name(self.lakebase_conn_id, "lakebase_conn_id"),
            dbos_schema=as_name(self.dbos_schema, "dbos_schema"),
            application=None if self.application is None else as_name(self.application, "application"),
            serialization=self.serialization,
        )

    def project_page(self) -> str | None:
        """Return the URL of the Lakebase project, empty if unknown; None before a login."""
        return self._page
