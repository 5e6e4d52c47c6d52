"""ChronoTables and RollUps in a local Lakebase, and what has become of them, seen in both tiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from airflow_provider_lakets.local.api.faults import FaultName
    from airflow_provider_lakets.local.client import LocalServer
    from airflow_provider_lakets.local.lakebase import LocalLakebase

FLUSH_SECONDS = 60.0
LONG = 300  # seconds; longer than any test waits

_QUERY = """
SELECT lakets.time_bucket('1 hour', at) AS bucket, count(*) AS readings, sum(value) AS total
  FROM public.{table}
 GROUP BY 1
"""

# How long a refresh sleeps when it begins to write.
_PAUSE = """
CREATE TABLE public.pace AS SELECT 0::float8 AS seconds;
CREATE OR REPLACE FUNCTION public.pause() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN PERFORM pg_catalog.pg_sleep(pace.seconds) FROM public.pace; RETURN NULL; END'
"""

_PACE = """
CREATE OR REPLACE FUNCTION public.pace() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN PERFORM pg_catalog.pg_sleep(tg_argv[0]::float8); RETURN new; END'
"""


class Lake:
    """
    What a test has in the Lakebase; all else was removed before.

    :param cloud: The Lakebase; runs.
    :param lakebase: The same, past the front door: Delta is seen from there.
    """

    def __init__(self, cloud: LocalServer, lakebase: LocalLakebase) -> None:
        self.cloud = cloud
        self.lakebase = lakebase
        self.jobs = cloud.state.jobs.client_id
        self.owner = cloud.state.owner.client_id
        self.admin = psycopg.connect(lakebase.conninfo(), autocommit=True)
        # As the application would come in: through the front door, with a credential of its own.
        self.conn = cloud.connect()
        self.conn.execute(_PAUSE)

    def clean(self) -> None:
        """Take all of it away, and whatever is wrong."""
        self.cloud.clear_faults()
        self.slow_tiering(0)
        self.admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = %s", [self.jobs]
        )
        for schema, table in self.admin.execute(
            "SELECT schema_name, table_name FROM lakets._chronotable_registry"
        ).fetchall():
            # More than one transaction has room for.
            while self.admin.execute(
                "SELECT lakets.drop_chronotable_chunks(%s, %s)", [table, schema]
            ).fetchone() != (0,):
                pass
            self.admin.execute("SELECT lakets.drop_chronotable(%s, %s)", [table, schema])
        self.admin.execute("DROP TABLE IF EXISTS public.pace")

    def close(self) -> None:
        self.conn.close()
        self.admin.close()

    # Set up

    def table(self, name: str, *, days: int = 6, tier: str = "2 days", drop: str | None = "4 days") -> None:
        """Create a synced ChronoTable of daily chunks, with four rows in each of the last days."""
        self.conn.execute(
            f"CREATE TABLE public.{name} (at timestamptz NOT NULL, device text NOT NULL, value numeric,"
            " PRIMARY KEY (at, device))".encode()
        )
        self.value(
            "SELECT lakets.create_chronotable(p_table_name => %s, p_time_column => 'at',"
            " p_chunk_interval => '1 day')",
            name,
        )
        self.ensure(name, days)
        self.conn.execute("SELECT lakets.enable_sync(%s)", [name])
        self.fill(name, days)
        if drop is None:
            self.conn.execute("SELECT lakets.add_tiering_policy(%s, %s)", [name, tier])
        else:
            self.conn.execute("SELECT lakets.add_tiered_retention_policy(%s, %s, %s)", [name, tier, drop])

    def ensure(self, name: str, days: int) -> None:
        """Have chunks for so many days past."""
        self.value(
            "SELECT lakets._ensure_partitions(reg.id, p_range_start => now() - make_interval(days => %s),"
            " p_range_end => now()) FROM lakets._chronotable_registry AS reg WHERE reg.table_name = %s",
            days,
            name,
        )

    def fill(self, name: str, days: int) -> None:
        """Have four rows a day, six hours apart, for so many days past."""
        self.conn.execute(
            f"INSERT INTO public.{name} SELECT date_trunc('hour', now()) - quarter * interval '6 hours', 'a',"
            " quarter FROM generate_series(0, %s) AS quarter".encode(),
            [days * 4 - 1],
        )

    def rollup(self, name: str, table: str) -> None:
        """Make an hourly RollUp; each of its refreshes takes as long as :meth:`slow` says."""
        self.value(
            "SELECT lakets.create_rollup(p_name => %s, p_query => %s, p_bucket_interval => '1 hour',"
            " p_source_table => %s)",
            name,
            _QUERY.format(table=table),
            table,
        )
        self.conn.execute("SELECT lakets.set_refresh_lag(%s, interval '0')", [name])
        self.conn.execute(
            f"CREATE TRIGGER pause BEFORE INSERT ON public._rollup_{name}"
            " FOR EACH STATEMENT EXECUTE FUNCTION public.pause()".encode()
        )

    def slow(self, seconds: float) -> None:
        """Let refreshes that begin now sleep so long before they write a row."""
        self.conn.execute("UPDATE public.pace SET seconds = %s", [seconds])

    def slow_tiering(self, seconds: float) -> None:
        """Let each chunk that is flagged from now on take so long."""
        self.admin.execute("DROP TRIGGER IF EXISTS pace ON lakets._chunk_metadata")
        if seconds:
            self.admin.execute(_PACE)
            self.admin.execute(
                "CREATE TRIGGER pace BEFORE UPDATE ON lakets._chunk_metadata FOR EACH ROW"
                f" WHEN (NEW.status = 'tiered') EXECUTE FUNCTION public.pace('{seconds}')".encode()
            )

    def table_of_hours(self, name: str, chunks: int) -> None:
        """Create a synced ChronoTable with this many due hourly chunks of one row each."""
        self.conn.execute(f"CREATE TABLE public.{name} (at timestamptz PRIMARY KEY, value int)".encode())
        hours = chunks + 2
        table = self.value("SELECT lakets.create_chronotable(%s, 'at', '1 hour')", name)
        # As many as there is room for: the feed holds locks, too.
        while self.value(
            "SELECT lakets._ensure_partitions(%s, p_range_start => now() - make_interval(hours => %s),"
            " p_range_end => now())",
            table,
            hours,
        ):
            pass
        self.conn.execute("SELECT lakets.enable_sync(%s)", [name])
        self.conn.execute(
            f"INSERT INTO public.{name} SELECT now() - n * interval '1 hour', n"
            " FROM generate_series(0, %s) AS n".encode(),
            [hours],
        )
        self.conn.execute("SELECT lakets.add_tiering_policy(%s, '1 hour')", [name])

    def time_functions(self) -> None:
        """Measure from now on how long the jobs' role spends in functions of LakeTS."""
        role = sql.Identifier(self.jobs)
        self.admin.execute(sql.SQL("ALTER ROLE {} SET track_functions = 'pl'").format(role))
        self.admin.execute("SELECT pg_stat_reset()")

    def seconds_in_functions(self) -> float:
        """Return how long it has spent there, all sessions together."""
        self.admin.execute(sql.SQL("ALTER ROLE {} RESET track_functions").format(sql.Identifier(self.jobs)))
        (seconds,) = self.column(
            "SELECT coalesce(sum(total_time), 0) / 1000 FROM pg_stat_user_functions"
            " WHERE schemaname = 'lakets' AND funcname IN ('tier_chunk', '_get_chunks_to_tier')"
        )
        return float(seconds)

    def touch(self, table: str) -> None:
        """Change every row that is in Lakebase."""
        self.conn.execute(f"UPDATE public.{table} SET value = value + 1".encode())

    def fault(self, name: FaultName, *, times: int | None = None) -> None:
        self.cloud.fault(name, times=times)

    # What there is

    def value(self, query: str, *parameters: Any) -> Any:
        row = self.conn.execute(query.encode(), parameters or None).fetchone()
        return row[0] if row else None

    def column(self, query: str, *parameters: Any) -> list[Any]:
        return [row[0] for row in self.admin.execute(query.encode(), parameters or None)]

    def chunks(self, table: str, status: str) -> list[str]:
        """Return the names of the chunks that have a status, oldest first."""
        return self.column(
            "SELECT chunk.chunk_name FROM lakets._chunk_metadata AS chunk"
            " JOIN lakets._chronotable_registry AS reg ON reg.id = chunk.chronotable_id"
            " WHERE reg.table_name = %s AND chunk.status = %s ORDER BY chunk.range_start",
            table,
            status,
        )

    def candidates(self, table: str) -> list[str]:
        """Return the names of the chunks that are due for tiering, oldest first."""
        return self.column(
            "SELECT chunk_name FROM lakets._get_chunks_to_tier(%s) ORDER BY range_start", table
        )

    def partitions(self, table: str) -> int:
        """Count the partitions that there really are, but for the default one."""
        return int(
            self.column(
                "SELECT count(*) FROM pg_catalog.pg_inherits AS inh"
                " JOIN pg_catalog.pg_class AS part ON part.oid = inh.inhrelid"
                " WHERE inh.inhparent = to_regclass('public.' || %s)"
                " AND pg_get_expr(part.relpartbound, part.oid) <> 'DEFAULT'",
                table,
            )[0]
        )

    def rows(self, table: str) -> int:
        return int(self.column(f"SELECT count(*) FROM public.{table}")[0])

    def rows_in_delta(self, table: str) -> int:
        """Count the rows that the Delta history leads to."""
        shadow = self.column(
            "SELECT shadow_table_name FROM lakets._chronotable_registry WHERE table_name = %s", table
        )[0]
        return int(self.lakebase.current_rows(shadow).num_rows)

    def wait_flushed(self) -> None:
        self.lakebase.wait_flushed(FLUSH_SECONDS)

    def wrong_buckets(self, rollup: str, table: str, *, since: str = "-infinity") -> list[Any]:
        """Return the buckets from an instant on that differ from the query on current rows."""
        query = _QUERY.format(table=table)
        return self.column(
            f"WITH fresh AS ({query}), kept AS (SELECT * FROM public._rollup_{rollup}),"
            " wrong AS ((TABLE fresh EXCEPT ALL TABLE kept) UNION ALL (TABLE kept EXCEPT ALL TABLE fresh))"
            " SELECT DISTINCT bucket FROM wrong WHERE bucket >= %s::timestamptz ORDER BY 1",
            since,
        )

    def sleepers(self) -> int:
        """Count the sessions of the jobs' role that are in the middle of a slow refresh."""
        return len(
            self.column(
                "SELECT pid FROM pg_stat_activity WHERE usename = %s AND wait_event = 'PgSleep'", self.jobs
            )
        )

    def sessions(self) -> list[str]:
        """Return the sessions of the jobs' role, each with what it does."""
        return self.column(
            "SELECT application_name || ': ' || state || ': ' || query FROM pg_stat_activity"
            " WHERE usename = %s",
            self.jobs,
        )

    def set_membership(self, *, granted: bool) -> None:
        """Grant or revoke membership in the owner, which is needed to attach a partition."""
        what = "GRANT {} TO {}" if granted else "REVOKE {} FROM {}"
        self.admin.execute(sql.SQL(what).format(sql.Identifier(self.owner), sql.Identifier(self.jobs)))
