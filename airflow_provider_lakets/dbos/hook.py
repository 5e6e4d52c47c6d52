"""DBOSHook: a DBOSClient on a Lakebase connection."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_lakets.dbos.engine import IDLE_IN_TRANSACTION
from airflow_provider_lakets.exceptions import DBOSSettingError, LakebaseConnectionError, LakeTSError
from airflow_provider_lakets.hooks._errors import translate
from airflow_provider_lakets.hooks.lakebase import LakebaseHook

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbos import DBOSClient, WorkflowStatus
    from sqlalchemy.engine import Connection as SqlConnection
    from sqlalchemy.engine import Engine

Serialization = Literal["portable", "native"]

# The first version whose client merges attributes, in which tasks record what they have reported.
LOWEST_DBOS = (3, 3)

_QUEUES = "SELECT queue.name, queue.application_name, queue.partition_queue FROM {schema}.queues AS queue"

# With more ids, a statement would exceed the number of parameters that Postgres accepts.
IDS_AT_ONCE = 5000

# The number of existing names that a message shows.
NAMES_SHOWN = 20


@dataclass(frozen=True)
class Queue:
    """
    A queue of a DBOS program.

    :param name: The name of the queue.
    :param application: The application that owns it, if any.
    :param is_partitioned: Whether it has limits for each partition.
    """

    name: str
    application: str | None
    is_partitioned: bool

    def check_partition(self, key: str | None) -> None:
        """Require a key for a queue with partitions, and refuse one for other queues."""
        if self.is_partitioned and not key:
            raise DBOSSettingError(
                f"Queue {self.name!r} is partitioned: a workflow without partition_key is never taken from "
                "it. Give one, or use another queue."
            )
        if key and not self.is_partitioned:
            raise DBOSSettingError(
                f"Queue {self.name!r} is not partitioned, so partition_key {key!r} would have no "
                "effect. Omit it, or register the queue with partition_concurrency=1."
            )


class DBOSHook(LakebaseHook):
    """
    Start, monitor and control workflows of DBOS programs whose system database is on Lakebase.

    It uses the same connections as :class:`LakebaseHook`. DBOS does not retry here: a lost
    connection is an error, and Airflow retries the task. Nothing is unpickled by default, because
    anybody who can write to the database of a program could put code into a pickle.

    :param dbos_schema: Schema of the DBOS system tables.
    :param application: Name of the DBOS application; required if several share the system
        database.
    :param serialization: ``portable`` (JSON), or ``native`` to also write and read Python's
        pickle.
    :param pooled: Whether to keep sessions for the next call.
    """

    def __init__(
        self,
        *args: Any,
        dbos_schema: str = "dbos",
        application: str | None = None,
        serialization: Serialization = "portable",
        pooled: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if serialization not in ("portable", "native"):
            raise DBOSSettingError(f"serialization is {serialization!r}. Give 'portable' or 'native'.")
        if not dbos_schema or not dbos_schema.strip():
            raise DBOSSettingError("dbos_schema is empty. Omit it for 'dbos'.")
        self.dbos_schema = dbos_schema
        self.application = application
        self.serialization = serialization
        self.pooled = pooled

    @cached_property
    def client(self) -> DBOSClient:
        """The client, which logs in at its first use."""
        _require_dbos()
        from dbos import DBOSClient, DBOSPortableJSONSerializer

        portable: dict[str, Any] = {}
        if self.serialization == "portable":
            portable["serializer"] = DBOSPortableJSONSerializer()
        return DBOSClient(
            system_database_engine=self._engine,
            dbos_system_schema=self.dbos_schema,
            application_name=self.application,
            lazy=True,
            retry_connection_errors=False,
            **portable,
        )

    def close(self) -> None:
        """Close the sessions; a later call opens new ones."""
        client: DBOSClient | None = self.__dict__.pop("client", None)
        engine: Engine | None = self.__dict__.pop("_engine", None)
        if client is not None:
            client.destroy()
        if engine is not None:
            engine.dispose()

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[DBOSClient]:
        """
        Yield the client; errors of DBOS and Postgres become a LakeTSError.

        :param what: A description of the call, for messages.
        """
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.exc import TimeoutError as PoolTimeoutError

        client = self.client
        try:
            yield client
        except DBAPIError as err:
            raise self._translated(err, what) from err
        except PoolTimeoutError as err:
            raise LakebaseConnectionError(f"{what}: no session became free in time") from err
        except LakeTSError:
            raise
        except UnicodeError as err:
            raise DBOSSettingError(f"{what}: {err}") from None
        except Exception as err:
            from dbos import error

            if not isinstance(err, error.DBOSException):
                raise
            raise DBOSSettingError(f"{what}: {err}") from err

    def statuses(self, workflow_ids: Iterable[str]) -> dict[str, WorkflowStatus]:
        """Return workflows by id, without inputs and outputs; unknown ids are omitted."""
        wanted = list(dict.fromkeys(workflow_ids))
        found: dict[str, WorkflowStatus] = {}
        with self.doing(f"Looking up {len(wanted)} DBOS workflow(s)") as client:
            for start in range(0, len(wanted), IDS_AT_ONCE):
                for one in client.list_workflows(
                    workflow_ids=wanted[start : start + IDS_AT_ONCE], load_input=False, load_output=False
                ):
                    found[one.workflow_id] = one
        return found

    def check_schema(self) -> None:
        """Refuse a schema without DBOS system tables; name the schemas that have them."""
        query = (
            "SELECT namespace.nspname FROM pg_catalog.pg_class AS class"
            " JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace"
            " WHERE class.relname = 'workflow_status' AND class.relkind IN ('r', 'p') ORDER BY 1"
        )
        schemas = [row[0] for row in self.rows(query, "Looking for the DBOS system tables")]
        if self.dbos_schema not in schemas:
            there = f"They are in: {_listed(schemas)}." if schemas else "There are none in this database."
            raise DBOSSettingError(
                f"Connection {self.get_conn_id()!r}, database {self._dbname!r}: schema {self.dbos_schema!r} "
                f"has no DBOS system tables. {there} A DBOS program creates them when it starts; name their "
                "schema as dbos_schema, and their database in the connection."
            )

    def find_queue(self, queue_name: str) -> Queue:
        """
        Return a queue of the application, or of any application; refuse an unknown queue.

        :param queue_name: The name of the queue. In an unknown queue a workflow would wait forever.
        """
        rows = [Queue(*row) for row in self.rows(_QUEUES, f"Looking up queue {queue_name!r}")]
        mine = (None, self.application)
        queues = {one.name: one for one in rows if self.application is None or one.application in mine}
        if queue_name in queues:
            return queues[queue_name]
        of = f" of application {self.application!r}" if self.application else ""
        owner = next((f" It belongs to {one.application!r}." for one in rows if one.name == queue_name), "")
        raise DBOSSettingError(
            f"There is no queue {queue_name!r}{of} in schema {self.dbos_schema!r}.{owner} There are: "
            f"{_listed(queues) or 'none'}. A program creates one with DBOS.register_queue(name)."
        )

    def check_version(self, app_version: str) -> None:
        """Refuse an unknown application version, because nothing would run its workflows."""
        with self.doing(f"Looking up version {app_version!r}") as client:
            versions = [version["version_name"] for version in client.list_application_versions()]
        if app_version not in versions:
            raise DBOSSettingError(
                f"There is no application version {app_version!r}. There are, latest first: "
                f"{_listed(versions) or 'none'}. Omit app_version for the latest."
            )

    def rows(self, query: str, what: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """
        Return the rows of a query on one of the client's own sessions.

        :param query: The query; ``{schema}`` stands for the quoted schema of the system tables.
        :param what: A description of the query, for messages.
        :param parameters: The values for its ``%s``.
        """
        quoted = '"' + self.dbos_schema.replace('"', '""').replace("%", "%%") + '"'
        with self.doing(what), self.transaction() as conn:
            result = conn.exec_driver_sql(query.replace("{schema}", quoted), parameters or None)
            return [tuple(row) for row in result]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[SqlConnection]:
        """Yield one of the client's own sessions, in a transaction."""
        with self._engine.begin() as conn:
            yield conn

    @cached_property
    def _engine(self) -> Engine:
        from sqlalchemy.pool import NullPool

        pool: dict[str, Any] = {"pool_size": 2, "max_overflow": 3} if self.pooled else {"poolclass": NullPool}
        return self.get_sqlalchemy_engine({"connect_args": {"options": IDLE_IN_TRANSACTION}, **pool})

    def _translated(self, err: Any, what: str) -> LakeTSError:
        import psycopg

        if isinstance(err.orig, psycopg.DataError):
            return DBOSSettingError(f"{what}: {err.orig}")
        if isinstance(err.orig, (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)):
            return DBOSSettingError(
                f"{what}: the DBOS system tables in schema {self.dbos_schema!r} are not those of DBOS "
                f"{metadata.version('dbos')}, which is installed here ({err.orig.diag.message_primary}). Use "
                "the same minor version for the program and Airflow."
            )
        if isinstance(err.orig, psycopg.Error):
            return translate(err.orig, doing=what, role=None, conn_id=self.get_conn_id())
        return LakeTSError(f"{what}: {err.orig or err}")


def _require_dbos() -> None:
    try:
        found = metadata.version("dbos")
    except metadata.PackageNotFoundError:
        found = ""
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < LOWEST_DBOS:
        there = f"{found} is installed" if found else "it is not installed"
        lowest = ".".join(map(str, LOWEST_DBOS))
        raise DBOSSettingError(
            f"DBOSHook needs dbos {lowest} or later; {there}. "
            "Run: pip install 'airflow-provider-lakets[dbos]'"
        )


def _listed(names: Iterable[str]) -> str:
    found = sorted(names) if isinstance(names, dict) else list(names)
    more = f" and {len(found) - NAMES_SHOWN} more" if len(found) > NAMES_SHOWN else ""
    return ", ".join(repr(name) for name in found[:NAMES_SHOWN]) + more
