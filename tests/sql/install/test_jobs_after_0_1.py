"""The jobs continue after an install over 0.1.x, and complete its mirrors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sql.install.scene import by_status, feed, one, tier_all

if TYPE_CHECKING:
    import psycopg


def test_rollups_become_equal_to_their_queries(upgraded: psycopg.Connection) -> None:
    upgraded.execute("DELETE FROM metrics WHERE device = 'd1' AND ts < now() - interval '3 days'")
    upgraded.execute("INSERT INTO metrics VALUES (now() - interval '1 day', 'new', 100)")

    refreshed = upgraded.execute(
        "SELECT rollup_name, refreshed FROM lakets.refresh_rollup_cascade()"
    ).fetchall()

    assert refreshed == [("hourly", True), ("daily", True)]
    for name in ("hourly", "daily"):
        query = one(upgraded, f"SELECT query_text FROM lakets._rollup_registry WHERE name = '{name}'")
        # A bucket whose source is dropped keeps its value.
        kept = "(SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'dropped')"
        same = (
            f"SELECT count(*) FROM ((SELECT * FROM ({query}) AS q WHERE bucket >= {kept}"
            f" EXCEPT ALL SELECT * FROM public._rollup_{name} WHERE bucket >= {kept})"
            f" UNION ALL (SELECT * FROM public._rollup_{name} WHERE bucket >= {kept}"
            f" EXCEPT ALL SELECT * FROM ({query}) AS q WHERE bucket >= {kept})) AS d"
        )
        assert one(upgraded, same) == 0


def test_pending_invalidations_are_refreshed(upgraded: psycopg.Connection) -> None:
    kept = "(SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'dropped')"
    stale = f"SELECT count(*) FROM public._rollup_{{}} WHERE total = -1 AND bucket >= {kept}"
    frozen = f"SELECT count(*) FROM public._rollup_hourly WHERE total = -1 AND bucket < {kept}"
    before = one(upgraded, frozen)
    assert min(before, *(one(upgraded, stale.format(name)) for name in ("hourly", "daily"))) > 0

    upgraded.execute("SELECT lakets.refresh_rollup_cascade()")

    assert [one(upgraded, stale.format(name)) for name in ("hourly", "daily")] == [0, 0]
    assert one(upgraded, frozen) == before
    assert one(upgraded, "SELECT count(*) FROM lakets._rollup_invalidation_log") == 0


def test_a_synced_rollup_goes_on_being_mirrored(upgraded: psycopg.Connection) -> None:
    table, shadow = "TABLE public._rollup_hourly", "TABLE lakets_cdf._shadow_rollup_hourly"
    difference = f"({table} EXCEPT ALL {shadow}) UNION ALL ({shadow} EXCEPT ALL {table})"
    before = upgraded.execute(shadow.encode()).fetchall()

    upgraded.execute("INSERT INTO metrics VALUES (now() - interval '1 day', 'new', 100)")
    upgraded.execute("DELETE FROM metrics WHERE device = 'd1' AND ts > now() - interval '3 days'")
    upgraded.execute("SELECT lakets.refresh_rollup_cascade()")

    assert upgraded.execute(difference.encode()).fetchall() == []
    assert one(upgraded, f"SELECT count(*) FROM ({shadow}) AS s WHERE device = 'new'") == 1
    assert upgraded.execute(shadow.encode()).fetchall() != before


def test_tiered_retention_tiers_and_then_drops(upgraded: psycopg.Connection) -> None:
    assert one(upgraded, "SELECT lakets.execute_retention('metrics')") == 0

    feed(upgraded)
    tier_all(upgraded, "metrics", "public")
    upgraded.execute("SELECT lakets.refresh_rollup_cascade()")
    assert by_status(upgraded, 1, "2 days") == {"tiered", "dropped"}
    due = one(
        upgraded,
        "SELECT count(*) FROM lakets._chunk_metadata WHERE chronotable_id = 1 AND status = 'tiered'"
        " AND range_end <= now() - interval '15 days'",
    )

    assert one(upgraded, "SELECT lakets.execute_retention('metrics')") == due > 2
    assert by_status(upgraded, 1, "15 days") == {"dropped"}
    assert one(upgraded, "SELECT count(*) FROM metrics WHERE ts < now() - interval '16 days'") == 0
    assert one(upgraded, "SELECT min(ts) < now() - interval '14 days' FROM metrics")


def test_what_has_a_tiering_policy_only_is_tiered_and_never_dropped(upgraded: psycopg.Connection) -> None:
    held = one(upgraded, "SELECT count(*) FROM plant.readings")

    feed(upgraded)
    tier_all(upgraded, "readings", "plant")

    assert by_status(upgraded, 2, "10 days") == {"tiered"}
    assert one(upgraded, "SELECT lakets.execute_retention('readings', 'plant')") == 0
    assert by_status(upgraded, 2, "10 days") == {"tiered"}
    assert one(upgraded, "SELECT count(*) FROM plant.readings") == held


def test_the_mirror_of_0_1_3_is_completed_by_the_tiering_job(upgraded: psycopg.Connection) -> None:
    missing = "SELECT count(*) FROM (TABLE metrics EXCEPT ALL TABLE lakets_cdf._shadow_metrics) AS d"
    assert one(upgraded, missing) > 70
    feed(upgraded)
    oldest = one(upgraded, "SELECT chunk_name FROM lakets._get_chunks_to_tier('metrics')")

    # All that is in the shadow is flushed: what matters is that more is missing.
    assert one(upgraded, f"SELECT lakets.explain_durability('{oldest}')") is not None
    assert one(upgraded, "SELECT lakets.execute_retention('metrics')") == 0
    assert not one(upgraded, f"SELECT lakets.tier_chunk('{oldest}')")
    tier_all(upgraded, "metrics", "public")

    assert by_status(upgraded, 1, "2 days") == {"tiered", "dropped"}
    due = "(SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'tiered')"
    assert one(upgraded, f"{missing} WHERE ts < {due}") == 0


def test_a_mirror_of_0_1_3_with_rows_too_many_is_put_right(upgraded: psycopg.Connection) -> None:
    old = (
        "(SELECT min(range_start) FROM lakets._chunk_metadata WHERE chronotable_id = 2 AND status = 'active')"
    )
    upgraded.execute(
        f"INSERT INTO lakets_cdf._shadow_readings VALUES ({old}, -1), ({old}, 40), ({old}, 40)".encode()
    )
    feed(upgraded)

    tier_all(upgraded, "readings", "plant")

    due = "(SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'tiered' AND chronotable_id = 2)"
    table, shadow = (
        f"SELECT * FROM {name} WHERE at < {due}" for name in ("plant.readings", "lakets_cdf._shadow_readings")
    )
    assert (
        upgraded.execute(
            f"({table} EXCEPT ALL {shadow}) UNION ALL ({shadow} EXCEPT ALL {table})".encode()
        ).fetchall()
        == []
    )


def test_a_table_that_is_only_dropped_from_is_compared_by_retention(upgraded: psycopg.Connection) -> None:
    upgraded.execute(
        "SELECT lakets.remove_tiering_policy('readings', 'plant'),"
        " lakets.add_retention_policy('readings', '20 days', 'plant')"
    )
    feed(upgraded)
    dropped = 0

    for _ in range(4):
        dropped += one(upgraded, "SELECT lakets.execute_retention('readings', 'plant')")
        upgraded.execute("UPDATE wal2delta.tables SET committed_lsn = pg_current_wal_insert_lsn()")

    assert dropped > 1
    gone = (
        "(SELECT max(range_end) FROM lakets._chunk_metadata WHERE chronotable_id = 2 AND status = 'dropped')"
    )
    assert one(upgraded, f"SELECT count(*) FROM lakets_cdf._shadow_readings WHERE at < {gone}") > 10


def test_retention_goes_on(upgraded: psycopg.Connection) -> None:
    dropped = one(upgraded, "SELECT lakets.execute_retention('scratch', 'plant')")

    assert dropped >= 3
    assert one(upgraded, "SELECT count(*) FROM plant.scratch") < 45
