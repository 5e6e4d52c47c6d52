"""Shared code of the DBOS operators and sensors: one hook per task, errors that decide retries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import BaseOperator

from airflow_provider_lakets.compat import HAS_RETRY_POLICY, fail
from airflow_provider_lakets.exceptions import PERMANENT, LakeTSError, wrapped
from airflow_provider_lakets.links import LakebaseProjectLink
from airflow_provider_lakets.operators._arguments import (
    LEFT_OUT,
    ONCE,
    as_name,
    is_left_out,
    is_nothing,
    one_of,
)
from airflow_provider_lakets.retries import LakeTSRetryPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_lakets.dbos.hook import DBOSHook, Serialization


class DBOSBaseOperator(BaseOperator):
    """
    Base of the DBOS operators.

    :param lakebase_conn_id: The connection of type ``lakebase``; its database holds the system
        tables of DBOS. (templated)
    :param dbos_schema: The schema of the system tables. (templated)
    :param application: Name of the DBOS application; required if several share the system
        database. (templated)
    :param serialization: ``portable``, or ``native`` to also write and read Python's pickle.
    """

    template_fields: Sequence[str] = ("lakebase_conn_id", "dbos_schema", "application")
    operator_extra_links = (LakebaseProjectLink(),)
    ui_color = "#dbeee0"

    def __init__(
        self,
        *,
        lakebase_conn_id: str = "lakebase_default",
        dbos_schema: str = "dbos",
        application: str | None = LEFT_OUT,
        serialization: Serialization = "portable",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._given: dict[str, tuple[type, ...]] = {}
        self.lakebase_conn_id = lakebase_conn_id
        self.dbos_schema = dbos_schema
        self.application = self.given(application, "application")
        self.serialization = one_of(serialization, "serialization", ("portable", "native"))
        self._page: str | None = None
        if HAS_RETRY_POLICY and self.retry_policy is None:
            self.retry_policy = LakeTSRetryPolicy()

    def given(self, value: Any, name: str, empty: tuple[type, ...] = ()) -> Any:
        """
        Return an argument, or None if it was omitted; record whether it was given.

        :param value: The argument.
        :param name: The name of the argument.
        :param empty: Types of which an empty value is valid.
        """
        if is_left_out(self, value):
            return None
        self._given[name] = empty
        return value

    def is_given(self, name: str) -> bool:
        """Return whether the author gave an argument."""
        return name in self._given

    def name_or_none(self, name: str) -> str | None:
        """Return an argument that is a name; None if it was omitted."""
        return as_name(getattr(self, name), name) if self.is_given(name) else None

    def check_given(self) -> None:
        """Fail without retries if a given argument was rendered to nothing."""
        for name, empty in self._given.items():
            value = getattr(self, name)
            if isinstance(value, Iterator):
                fail(f"{name} was rendered to {ONCE}.")
            if is_nothing(value) and (isinstance(value, str) or not isinstance(value, empty)):
                fail(
                    f"{name} was rendered to {value!r}, which is nothing. Correct the template, or the task "
                    "that it reads; or leave the argument out."
                )

    @contextlib.contextmanager
    def dbos(self) -> Iterator[DBOSHook]:
        """Yield a hook whose schema exists; an error that a retry cannot fix fails the task."""
        from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]

        self.check_given()
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
            raise wrapped(type(err), str(err)) from None

    def make_hook(self) -> DBOSHook:
        """Return a hook, which does not log in yet."""
        from airflow_provider_lakets.dbos.hook import DBOSHook

        return DBOSHook(
            as_name(self.lakebase_conn_id, "lakebase_conn_id"),
            dbos_schema=as_name(self.dbos_schema, "dbos_schema"),
            application=self.name_or_none("application"),
            serialization=cast("Serialization", self.serialization),
        )

    def project_page(self) -> str | None:
        """Return the URL of the Lakebase project, empty if unknown; None before a login."""
        return self._page
