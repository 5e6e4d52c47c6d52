"""A LakeTS database for tests of the provider: the stand-in for 0.1.x, or our own engine."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.copies import Copyable
from tests.older import LAKETS_01

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.copies import Copies

ENGINES = ("0.1", "ours")

FEED = """
CREATE SCHEMA IF NOT EXISTS wal2delta;
CREATE TABLE IF NOT EXISTS wal2delta.tables (
    table_oid oid PRIMARY KEY, status text NOT NULL, committed_lsn pg_lsn, last_write_time timestamptz
);
"""

_numbers = itertools.count()


def as_uri(conninfo: str, password: str = "not-asked-for") -> str:
    """Return a connection string as a user types it."""
    where = conninfo_to_dict(conninfo)
    host = quote(str(where["host"]), safe="")
    return f"postgresql://{where['user']}:{password}@{host}/{where['dbname']}?sslmode=disable"


class Lab(Copyable):
    """
    Makes what a test needs in one database, and says how Airflow reaches it.

    :param conninfo: Of the database; as its superuser.
    :param engine: Which LakeTS is in it.
    :param copies: Where the databases are kept in which tests begin.
    :param made: The name of the template of the database.
    """

    def __init__(self, conninfo: str, engine: str, copies: Copies | None = None, *made: str) -> None:
        super().__init__(conninfo, copies, *made)
        self.engine = engine

    def connection(self, **fields: Any) -> str:
        """Return the Airflow connection, in the form of an AIRFLOW_CONN_ variable."""
        where = conninfo_to_dict(self.conninfo)
        return json.dumps(
            {
                "conn_type": "lakebase",
                "host": where["host"],
                "schema": where["dbname"],
                "login": where["user"],
                "password": "not-asked-for",
                "extra": {"sslmode": "disable"},
                **fields,
            }
        )

    def hook(self, **arguments: Any) -> LakeTSHook:
        from airflow_provider_lakets.hooks.lakets import LakeTSHook

        return LakeTSHook(**arguments)

    def value(self, query: str, *parameters: Any) -> Any:
        row = self.conn.execute(query, parameters).fetchone()
        return row[0] if row else None

    def values(self, query: str, *parameters: Any) -> list[Any]:
        return [row[0] for row in self.conn.execute(query, parameters)]

    def table(self, name: str = "metrics", *, days: int = 0, schema: str = "public") -> int:
        """Create a ChronoTable of daily chunks, and rows of the last days; return its id."""
        self.once(Lab.make_table, name, days=days, schema=schema)
        row = (
            self._open()
            .execute(
                "SELECT id FROM lakets._chronotable_registry WHERE table_name = %s AND schema_name = %s",
                [name, schema],
            )
            .fetchone()
        )
        assert row is not None
        return int(row[0])

    def make_table(self, name: str, *, days: int = 0, schema: str = "public") -> None:
        """Do what :meth:`table` does."""
        self.conn.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        self.conn.execute(
            f'CREATE TABLE "{schema}"."{name}" (at timestamptz NOT NULL, device text NOT NULL, value float8)'
        )
        table_id = self.value(
            "SELECT lakets.create_chronotable(p_table_name => %s, p_time_column => 'at',"
            " p_chunk_interval => '1 day', p_schema_name => %s)",
            name,
            schema,
        )
        if days:
            self.value(
                "SELECT lakets._ensure_partitions(%s, p_range_start => now() - %s * interval '1 day',"
                " p_range_end => now())",
                table_id,
                days,
            )
            self.conn.execute(
                f'INSERT INTO "{schema}"."{name}"'
                " SELECT now() - day * interval '1 day', 'a', day FROM generate_series(0, %s - 1) AS day",
                [days],
            )

    def synced(self, name: str = "metrics", *, days: int, tier: str = "2 days", drop: str = "4 days") -> None:
        """Create a ChronoTable that is mirrored, with a tiered retention policy."""
        self.once(Lab.make_synced, name, days=days, tier=tier, drop=drop)

    def make_synced(self, name: str, *, days: int, tier: str, drop: str) -> None:
        """Do what :meth:`synced` does."""
        self.make_table(name)
        self.conn.execute("SELECT lakets.enable_sync(%s)", [name])
        self.value(
            "SELECT lakets._ensure_partitions(id, p_range_start => now() - %s * interval '1 day',"
            " p_range_end => now()) FROM lakets._chronotable_registry WHERE table_name = %s",
            days,
            name,
        )
        self.conn.execute(
            f'INSERT INTO "{name}"'
            " SELECT now() - day * interval '1 day', 'a', day FROM generate_series(0, %s - 1) AS day",
            [days],
        )
        self.conn.execute("SELECT lakets.add_tiered_retention_policy(%s, %s, %s)", [name, tier, drop])

    def flush(self, name: str = "metrics", *, status: str = "STREAMING") -> None:
        """Report everything committed as flushed by the change feed."""
        self.conn.execute(FEED)
        self.conn.execute(
            "INSERT INTO wal2delta.tables (table_oid, status, committed_lsn)"
            " VALUES (to_regclass('lakets_cdf._shadow_' || %s), %s, pg_current_wal_insert_lsn())"
            " ON CONFLICT (table_oid) DO UPDATE SET status = EXCLUDED.status,"
            " committed_lsn = EXCLUDED.committed_lsn",
            [name, status],
        )

    def sleepers(self) -> int:
        """Count the other sessions of the database that are in pg_sleep."""
        return int(
            self.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event = 'PgSleep' AND pid <> pg_backend_pid()"
            )
        )

    def wait_until_asleep(self) -> None:
        """Return as soon as another session of the database is in pg_sleep."""
        for _ in range(1000):
            if self.sleepers():
                return
            self.conn.execute("SELECT pg_sleep(0.01)")
        raise AssertionError("nothing went to sleep")

    def old_chunks(self, name: str = "metrics") -> list[str]:
        """Return the names of the chunks that end in the past, oldest first."""
        return self.values(
            "SELECT c.chunk_name FROM lakets._chunk_metadata c"
            " JOIN lakets._chronotable_registry t ON t.id = c.chronotable_id"
            " WHERE t.table_name = %s AND c.range_end <= now() ORDER BY c.range_start",
            name,
        )

    def rollup(self, name: str, *, reads: str = "metrics", lag: str = "0") -> None:
        """Create an hourly RollUp of a ChronoTable, or a daily one of another RollUp."""
        exists = self.value("SELECT count(*) FROM lakets._rollup_registry WHERE name = %s", reads)
        if exists:
            query = (
                f"SELECT date_trunc('day', bucket) AS bucket, device, sum(total) AS total "
                f'FROM public."_rollup_{reads}" GROUP BY 1, 2'
            )
            self.conn.execute(
                "SELECT lakets.create_rollup(p_name => %s, p_query => %s, p_bucket_interval => '1 day',"
                " p_depends_on => ARRAY[%s]::text[], p_source_table => %s)",
                # 0.1.3 wants the raw table as well.
                [name, query, reads, self._source_of(reads) if self.engine == "0.1" else None],
            )
        else:
            query = (
                f"SELECT date_trunc('hour', at) AS bucket, device, sum(value) AS total "
                f'FROM public."{reads}" GROUP BY 1, 2'
            )
            self.conn.execute(
                "SELECT lakets.create_rollup(p_name => %s, p_query => %s, p_source_table => %s)",
                [name, query, reads],
            )
        if self.engine == "0.1":
            self.conn.execute("SELECT lakets.enable_rollup_invalidation(%s)", [name])
        self.conn.execute(
            "UPDATE lakets._rollup_registry SET refresh_lag = %s::interval WHERE name = %s", [lag, name]
        )

    def _source_of(self, rollup: str) -> str:
        return str(
            self.value(
                "SELECT tab.table_name FROM lakets._rollup_registry AS rol"
                " JOIN lakets._chronotable_registry AS tab ON tab.id = rol.source_chronotable_id"
                " WHERE rol.name = %s",
                rollup,
            )
        )

    def break_rollup(self, name: str) -> None:
        """Let the next refresh of a RollUp fail, and touch its source so that a refresh is due."""
        self.conn.execute(f'ALTER TABLE public."_rollup_{name}" ADD CHECK (total > 1e9) NOT VALID')
        self.conn.execute("INSERT INTO metrics VALUES (now(), 'b', 1)")


@pytest.fixture
def clerk(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A role that may use LakeTS, but owns no table; lakebase_default logs in as it."""
    role = f"clerk_{lab.value('SELECT oid FROM pg_database WHERE datname = current_database()')}"
    for statement in (
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA lakets TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA lakets TO {role}",
        f"GRANT CREATE ON SCHEMA public TO {role}",
    ):
        lab.conn.execute(statement)
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(login=role))
    yield role
    lab.conn.execute(f"DROP OWNED BY {role}")
    lab.conn.execute(f"DROP ROLE {role}")


@pytest.fixture(scope="session")
def template_01(postgres: EmbeddedPostgres) -> str:
    """Load the stand-in for LakeTS 0.1.x once."""
    name = "lakets_01_template"
    with psycopg.connect(postgres.ensure_database(name), autocommit=True) as conn:
        conn.execute(LAKETS_01.encode())
    return name


@pytest.fixture(params=ENGINES, ids=lambda engine: f"lakets-{engine}")
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lab(
    engine: str,
    postgres: EmbeddedPostgres,
    lab_copies: Copies,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Lab]:
    """Yield a fresh LakeTS database that lakebase_default leads to."""
    template = request.getfixturevalue("template_01" if engine == "0.1" else "template")
    name = f"lab_{next(_numbers)}"
    lab = Lab(postgres.ensure_database(name, template=template), engine, lab_copies, template)
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection())
    yield lab
    lab.close()
    postgres.drop_database(name)
