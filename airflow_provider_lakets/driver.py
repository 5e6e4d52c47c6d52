"""PostgresHook on psycopg 3, with any version of SQLAlchemy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.postgres.hooks.postgres import PostgresHook
from psycopg.rows import dict_row, namedtuple_row
from psycopg.types.json import Json

from airflow_provider_lakets.exceptions import LakebaseSettingError
from airflow_provider_lakets.login.gate import shown

try:
    from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
except ImportError:  # an older common.sql provider records no lineage of statements
    send_sql_hook_lineage = None  # type: ignore[assignment,unused-ignore]

if TYPE_CHECKING:
    import psycopg

_ROWS = {"dictcursor": dict_row, "namedtuplecursor": namedtuple_row}
_FROM_FILE = re.compile(r"\bFROM\s+STDIN\b", re.IGNORECASE)
_BLOCK = 64 * 1024


class PsycopgHook(PostgresHook):
    """
    Use psycopg 3 as :class:`PostgresHook` uses psycopg 2 if SQLAlchemy is older than 2.0.

    Airflow 3.1 pins SQLAlchemy 1.4.54. Lakebase sessions still use psycopg 3; only SQLAlchemy
    engines are not available there.
    """

    def copy_expert(self, sql: str, filename: str) -> None:
        """
        Copy between a table and a local file; a missing file is created and treated as empty.

        :param sql: ``COPY ... FROM STDIN`` or ``COPY ... TO STDOUT``.
        :param filename: The file to read or to write.
        """
        self.log.info("Running copy expert: %s, filename: %s", sql, filename)
        path = Path(filename)
        with self.get_conn() as conn, conn.cursor() as cursor:
            if _FROM_FILE.search(sql):
                path.touch()
                with path.open("rb") as file, cursor.copy(sql) as copy:
                    while block := file.read(_BLOCK):
                        copy.write(block)
            else:
                with path.open("wb") as file, cursor.copy(sql) as copy:
                    for data in copy:
                        file.write(data)
            if send_sql_hook_lineage is not None:
                send_sql_hook_lineage(context=self, sql=sql, sql_parameters=(filename,), cur=cursor)

    def insert_rows(
        self, *args: Any, executemany: bool = False, fast_executemany: bool = False, **kwargs: Any
    ) -> None:
        """
        Insert rows; both ``executemany`` and ``fast_executemany`` send many rows at once.

        :param args: As for :meth:`PostgresHook.insert_rows`.
        :param executemany: Send the rows of one transaction together.
        :param fast_executemany: The same as ``executemany``, which is fast in psycopg 3.
        :param kwargs: As for :meth:`PostgresHook.insert_rows`.
        """
        many = executemany or fast_executemany
        super().insert_rows(*args, executemany=many, **kwargs)  # type: ignore[no-untyped-call]  # unannotated in the base class

    def get_db_log_messages(self, conn: psycopg.Connection[Any]) -> None:
        """Do nothing: each message was logged on arrival (``enable_log_db_messages``)."""

    def _get_cursor(self, raw_cursor: str) -> Any:
        try:
            return _ROWS[str(raw_cursor).casefold()]
        except KeyError:
            raise LakebaseSettingError(
                f"Connection {self.get_conn_id()!r}: there is no cursor {shown(raw_cursor)} with psycopg 3; "
                f"set 'cursor' in the extra to one of {', '.join(_ROWS)}, or leave it out."
            ) from None

    @staticmethod
    def _serialize_cell(cell: object, conn: Any | None = None) -> Any:
        # Like PostgresHook with psycopg 3. With psycopg 2 it passes lists unchanged, as arrays.
        return Json(cell) if isinstance(cell, (dict, list)) else cell
