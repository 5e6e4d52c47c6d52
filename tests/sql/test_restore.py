"""A dump that Postgres' programs restore into another cluster; jobs run there at once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.local.pg.binaries import bin_dir
from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
from tests.conftest import THROWAWAY
from tests.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

# So many transactions lie between the clusters: numbers that one has passed and the other has not.
FAR = 25_000
SPEND = """
CREATE OR REPLACE PROCEDURE public.spend(n integer) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM pg_current_xact_id();
        COMMIT;
    END LOOP;
END $$"""


def spend(conn: psycopg.Connection, transactions: int) -> None:
    conn.execute(SPEND)
    conn.execute("CALL public.spend(%s)", [transactions])
    conn.execute("DROP PROCEDURE public.spend")


@pytest.mark.parametrize("synced", [False, True], ids=["plain", "synced"])
@pytest.mark.parametrize("is_younger", [True, False], ids=["into a younger cluster", "into an older cluster"])
def test_what_was_absorbed_and_proved_counts_for_nothing_where_a_dump_is_restored(
    database: str, postgres_version: int, tmp_path: Path, is_younger: bool, synced: bool
) -> None:
    here = Stage(database)
    here.table()
    here.rollup("hourly")
    if synced:
        here.sync()
        here.run("SELECT lakets.add_tiered_retention_policy('metrics', '1 day', '2 days')")
    spend(here.conn, FAR if is_younger else 1)
    here.run("UPDATE metrics SET value = value + 1")
    here.refresh("hourly")
    dump = tmp_path / "dump"
    programs = bin_dir(postgres_version)
    if not (programs / "pg_dump").exists():
        programs = bin_dir(18)  # the package of 17 has the server only; these serve it as well
    subprocess.run([programs / "pg_dump", "-Fc", "-f", dump, "-d", database], check=True)
    here.close()

    with EmbeddedPostgres(tmp_path / "pg", version=postgres_version, settings=THROWAWAY) as other:
        restored = other.ensure_database("restored")
        if not is_younger:
            with psycopg.connect(restored, autocommit=True) as conn:
                spend(conn, FAR)
        subprocess.run([programs / "pg_restore", "--exit-on-error", "-d", restored, dump], check=True)
        there = Stage(restored)
        there.run("INSERT INTO metrics VALUES (50, %s, 7), (51, %s, 8)", there.at(1, 3), there.at(2, 3))
        spend(there.conn, FAR if is_younger else 1)

        refreshed = there.refresh("hourly")
        tiered = there.tier(1)
        dropped = there.value("SELECT lakets.execute_retention('metrics')") if synced else 0

        assert (refreshed, tiered, dropped, there.difference("hourly")) == (True, False, 0, [])
        there.close()
