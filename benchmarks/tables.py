"""The measured tables: ChronoTables, and the plain Postgres tables to compare them with."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

DEVICES = 100
READINGS = 333  # of each device a day
ROWS_A_DAY = DEVICES * READINGS  # a million rows are 30 days
FIRST_DAY = "timestamptz '2025-01-01 00:00:00+00'"
_START = datetime(2025, 1, 1, tzinfo=timezone.utc)

COLUMNS = "at timestamptz NOT NULL, device integer NOT NULL, value double precision, PRIMARY KEY (at, device)"
ROLLUPS = {
    "hourly": "SELECT lakets.time_bucket('1 hour', at) AS bucket, device, avg(value) AS mean,"
    " max(value) AS most, count(*) AS readings FROM public.{} GROUP BY 1, 2",
    "daily": "SELECT lakets.time_bucket('1 day', at) AS bucket, avg(value) AS mean, count(*) AS readings "
    "FROM public.{} GROUP BY 1",
}


def instant(row: int) -> str:
    """Return the time of a row as a literal, which plans best; rows are numbered by time."""
    return f"'{_START + timedelta(seconds=row // DEVICES * 86_400 / READINGS)}'"


def rows(first: int, last: int) -> str:
    """Return a query for the rows numbered from first up to, but not including, last."""
    return (
        f"SELECT {FIRST_DAY} + make_interval(secs => n / {DEVICES} * 86400.0 / {READINGS}), n % {DEVICES},"
        f" (n % 1000) / 10.0 FROM generate_series({first}, {last - 1}) AS n"
    )


def copy_data(conn: psycopg.Connection, first: int, last: int) -> bytes:
    """Return rows in the format of COPY."""
    with conn.cursor().copy(f"COPY ({rows(first, last)}) TO STDOUT") as copy:
        return b"".join(copy)


def chronotable(
    conn: psycopg.Connection, name: str, first: str, last: str, *, interval: str = "1 day"
) -> int:
    """Make a ChronoTable with chunks from one time to another (SQL text); return its id."""
    conn.execute(f"CREATE TABLE {name} ({COLUMNS})")
    table_id = scalar(conn, f"SELECT lakets.create_chronotable('{name}', 'at', '{interval}')")
    conn.execute(
        f"SELECT lakets._ensure_partitions({table_id}, p_range_start => {first}, p_range_end => {last})"
    )
    return table_id


def track(conn: psycopg.Connection, name: str, rollups: int, *, tier_after: str = "400 days") -> None:
    """Sync a ChronoTable, give it a tiering policy, and RollUps that never wait for their lag."""
    conn.execute(f"SELECT lakets.enable_sync('{name}')")
    conn.execute(f"SELECT lakets.add_tiering_policy('{name}', '{tier_after}')")
    conn.execute(
        "INSERT INTO wal2delta.tables SELECT format('lakets_cdf.%I', reg.shadow_table_name)::regclass,"
        " 'STREAMING', pg_current_wal_insert_lsn(), now()"
        f" FROM lakets._chronotable_registry AS reg WHERE reg.table_name = '{name}'"
    )
    for rollup, query in list(ROLLUPS.items())[:rollups]:
        interval = {"hourly": "1 hour", "daily": "1 day"}[rollup]
        add_rollup(conn, f"{name}_{rollup}", query.format(name), interval)


def add_rollup(conn: psycopg.Connection, name: str, query: str, interval: str) -> None:
    conn.execute("SELECT lakets.create_rollup(%s, %s, %s)", [name, query, interval])
    conn.execute("SELECT lakets.set_refresh_lag(%s, '0')", [name])


def plain_partitions(conn: psycopg.Connection, name: str, first: str, days: int) -> None:
    """Create a partitioned table with a partition for each day, as one would by hand."""
    conn.execute(f"CREATE TABLE {name} ({COLUMNS}) PARTITION BY RANGE (at)")
    conn.execute(create_partitions(name, first, range(days)))


def create_partitions(name: str, first: str, days: range) -> str:
    """Return a DO block that creates a partition for each of some days, counted from the first."""
    return f"""DO $$
        BEGIN
            FOR day IN {days.start} .. {days.stop - 1} LOOP
                EXECUTE format('CREATE TABLE {name}_p%s PARTITION OF {name} FOR VALUES FROM (%L) TO (%L)',
                               day, {first} + day * interval '1 day', {first} + (day + 1) * interval '1 day');
            END LOOP;
        END $$"""


def mirror_inserts(conn: psycopg.Connection, name: str) -> None:
    """Give a plain table a statement trigger that copies new rows into a second, indexed table."""
    conn.execute(f"CREATE TABLE {name}_mirror ({COLUMNS})")
    conn.execute(f"ALTER TABLE {name}_mirror REPLICA IDENTITY FULL")
    conn.execute(
        f"CREATE FUNCTION {name}_to_mirror() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$BEGIN INSERT INTO {name}_mirror SELECT * FROM new_rows; RETURN NULL; END$$"
    )
    conn.execute(
        f"CREATE TRIGGER to_mirror AFTER INSERT ON {name} REFERENCING NEW TABLE AS new_rows"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {name}_to_mirror()"
    )


def feed_catches_up(conn: psycopg.Connection) -> None:
    """Report to the engine that the change feed has flushed everything."""
    conn.execute("UPDATE wal2delta.tables SET committed_lsn = pg_current_wal_insert_lsn()")


def settle(conn: psycopg.Connection) -> None:
    """Finish background work of the loading, so that it does not affect the measurement."""
    conn.execute("VACUUM (ANALYZE)")
    conn.execute("CHECKPOINT")


def scalar(conn: psycopg.Connection, query: str) -> int:
    row = conn.execute(query).fetchone()
    assert row is not None
    value: int = row[0]
    return value
