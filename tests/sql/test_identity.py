"""A ChronoTable is identified as the same table under any name; another table is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.engine import install_script

if TYPE_CHECKING:
    from tests.stage import Raises, Stage


RETAIN = "SELECT lakets.execute_retention(%s, %s)"
IS_ANOTHER = "is not the ChronoTable that it was"


def statuses(stage: Stage) -> list[str]:
    return stage.column("SELECT DISTINCT status FROM lakets._chunk_metadata")


JOBS = {
    "retention": "SELECT lakets.execute_retention('metrics')",
    "forced retention": "SELECT lakets.execute_retention('metrics', p_force => true)",
    "drop chunks": "SELECT lakets.drop_chunks('metrics', '1 day')",
    "drop": "SELECT lakets.drop_chronotable('metrics')",
    "partitions": "SELECT lakets._ensure_partitions(1, 1, 9)",
    "sync": "SELECT lakets.enable_sync('metrics')",
    "candidates": "SELECT lakets._get_chunks_to_tier('metrics')",
    "tier": "SELECT lakets.tier_chunk('public.metrics_20240101_000000')",
    "chunks": "SELECT lakets.show_chunks('metrics')",
    "report": "SELECT lakets.retention_report('metrics')",
    "interval": "SELECT lakets.set_chunk_interval('metrics', '2 days')",
    "policy": "SELECT lakets.add_tiering_policy('metrics', '2 days')",
    "create": "SELECT lakets.create_chronotable('metrics', 'at')",
    "create unless it is there": "SELECT lakets.create_chronotable('metrics', 'at', p_if_not_exists => true)",
    "RollUp": "SELECT lakets.refresh_rollup('hourly', true)",
}


@pytest.mark.parametrize("how", ["swapped", "dropped and made again"])
@pytest.mark.parametrize("job", JOBS)
def test_a_table_in_the_place_of_another_is_refused_and_left_alone(
    kept: Stage, raises: Raises, job: str, how: str
) -> None:
    kept.rollup("hourly")
    kept.run("ALTER TABLE metrics RENAME TO old" if how == "swapped" else "DROP TABLE metrics CASCADE")
    kept.run(
        "CREATE TABLE metrics (id int, at timestamptz, value int); INSERT INTO metrics VALUES (7, now(), 7)"
    )
    before = kept.run("SELECT * FROM lakets._chunk_metadata ORDER BY id"), kept.run("TABLE _rollup_hourly")

    with raises("P0001", match=IS_ANOTHER):
        kept.run(JOBS[job])

    assert (
        kept.run("SELECT * FROM lakets._chunk_metadata ORDER BY id"),
        kept.run("TABLE _rollup_hourly"),
    ) == before
    assert kept.run("SELECT id FROM metrics") == [(7,)]
    if how == "swapped":
        assert kept.value("SELECT count(*) FROM old") == 4


def test_a_table_that_was_swapped_back_is_served_again(kept: Stage, raises: Raises) -> None:
    kept.run("ALTER TABLE metrics RENAME TO old; CREATE TABLE metrics (at timestamptz)")
    with raises("P0001", match=IS_ANOTHER):
        kept.value(RETAIN, "metrics", "public")
    kept.run("ALTER TABLE metrics RENAME TO new; ALTER TABLE old RENAME TO metrics")

    assert kept.value(RETAIN, "metrics", "public") == 4


@pytest.mark.parametrize("asked", ["old", "new"])
@pytest.mark.parametrize("change", ["table", "schema", "both"])
def test_a_rename_is_followed_and_said(kept: Stage, warned: list[str], change: str, asked: str) -> None:
    if change != "schema":
        kept.run('ALTER TABLE metrics RENAME TO "New %s"')
    if change != "table":
        kept.run('CREATE SCHEMA "S 2"')
        table = "metrics" if change == "schema" else '"New %s"'
        kept.run(f'ALTER TABLE {table} SET SCHEMA "S 2"')
    name = "metrics" if change == "schema" else "New %s"
    schema = "public" if change == "table" else "S 2"

    dropped = kept.value(RETAIN, *(("metrics", "public") if asked == "old" else (name, schema)))

    assert dropped == 4
    assert warned == [f"ChronoTable public.metrics is now called {schema}.{name}."]
    assert kept.run("SELECT schema_name, table_name FROM lakets._chronotable_registry") == [(schema, name)]
    assert kept.value("SELECT lakets._ensure_partitions(id, 0, 9) FROM lakets._chronotable_registry") > 0
    assert warned[1:] == []


def test_reports_know_a_renamed_table_before_a_job_follows(kept: Stage) -> None:
    kept.run("SELECT lakets.enable_sync('metrics'); ANALYZE metrics")
    kept.run("INSERT INTO lakets._mirror_gap (shadow) VALUES ('lakets_cdf._shadow_metrics')")

    kept.run("ALTER TABLE metrics RENAME TO other; CREATE TABLE metrics (id int)")

    repairs = kept.column("SELECT problem FROM lakets.pending_repairs()")
    assert [problem.split(" may lack")[0] for problem in repairs] == [
        "its mirror: lakets_cdf._shadow_metrics"
    ]
    metric = "SELECT metric_value FROM lakets.lakets_metrics() WHERE metric_name = 'lakets_estimated_rows'"
    assert kept.value(metric) == 4


def test_an_install_tracks_a_renamed_table(kept: Stage, warned: list[str]) -> None:
    kept.run("ALTER TABLE metrics RENAME TO other")

    kept.conn.execute(install_script().encode())

    assert "ChronoTable public.metrics is now called public.other." in warned
    assert not [text for text in warned if "does not exist" in text]


@pytest.mark.parametrize("synced", [True, False], ids=["synced", "not synced"])
def test_writers_go_on_when_the_time_column_is_renamed_and_the_next_job_follows(
    kept: Stage, warned: list[str], synced: bool
) -> None:
    if synced:
        kept.sync()
        warned.clear()
    kept.run('ALTER TABLE metrics RENAME COLUMN at TO "the time"')

    kept.run(f"INSERT INTO metrics VALUES (9, '{kept.at(2)}', 9)")
    kept.run("UPDATE metrics SET value = 10 WHERE id = 9")
    kept.run("DELETE FROM metrics WHERE id = 1")
    for _ in range(2):
        kept.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")

    assert warned == ["The time column of public.metrics is now called the time."]
    logged = "SELECT count(*) FROM lakets._change_log WHERE isfinite(min_time)"
    before = kept.value(logged)
    kept.run(f"INSERT INTO metrics VALUES (11, '{kept.at(3)}', 9)")
    assert kept.value(logged) == before + 1
    if synced:
        kept.run("SELECT lakets.enable_sync('metrics')")
        rows = 'SELECT id, "the time", value FROM {} ORDER BY id'
        assert kept.run(rows.format("lakets_cdf._shadow_metrics")) == kept.run(rows.format("metrics"))
    assert kept.value(RETAIN, "metrics", "public") == (0 if synced else 4)


def test_rows_of_dropped_chunks_stay_in_the_shadow_when_the_time_column_is_renamed(kept: Stage) -> None:
    kept.sync()
    kept.run("SELECT lakets.execute_retention('metrics', p_force => true)")
    kept.run("ALTER TABLE metrics RENAME COLUMN at TO ts; INSERT INTO metrics VALUES (9, now(), 9)")

    kept.run("SELECT lakets.enable_sync('metrics')")

    assert kept.column("SELECT id FROM lakets_cdf._shadow_metrics WHERE ts IS NOT NULL ORDER BY 1") == [
        1,
        2,
        3,
        4,
        9,
    ]


def test_a_change_of_the_old_name_is_told_from_a_rename_by_its_number(kept: Stage) -> None:
    kept.run("ALTER TABLE metrics RENAME COLUMN at TO ts; ALTER TABLE metrics ADD COLUMN at timestamptz")

    kept.run("INSERT INTO metrics (id, ts, at) VALUES (5, '2024-01-02', now())")
    kept.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")

    assert kept.column("SELECT time_column FROM lakets._chronotable_registry") == ["ts"]
    assert kept.value(RETAIN, "metrics", "public") == 4


def test_two_that_changed_names_are_told_apart_when_they_are_adopted(kept: Stage, raises: Raises) -> None:
    other = kept.table("other", days=[1, 2])
    kept.run(
        "ALTER TABLE metrics RENAME TO x; ALTER TABLE other RENAME TO metrics; ALTER TABLE x RENAME TO other"
    )
    with raises("P0001", match=IS_ANOTHER):
        kept.value(RETAIN, "metrics", "public")

    assert kept.value("SELECT lakets.adopt_chronotable('metrics')") == other

    names = kept.run("SELECT table_name, id <> %s FROM lakets._chronotable_registry ORDER BY 1", other)
    assert names == [("metrics", False), ("other", True)]
    assert kept.value(RETAIN, "other", "public") == 4
    assert kept.value(RETAIN, "metrics", "public") == 0


def test_the_new_name_of_a_swapped_table_is_adopted(kept: Stage) -> None:
    kept.run("ALTER TABLE metrics RENAME TO old; CREATE TABLE metrics (at timestamptz)")

    kept.run("SELECT lakets.adopt_chronotable('old')")

    assert kept.value(RETAIN, "old", "public") == 4
    assert kept.value("SELECT lakets.create_chronotable('metrics', 'at')") is not None


def test_what_is_left_of_a_table_that_is_gone_is_kept_when_it_is_forgotten(
    kept: Stage, raises: Raises
) -> None:
    kept.rollup("hourly")
    kept.sync()
    with raises("P0001", match="its table is still there"):
        kept.run("SELECT lakets.forget_chronotable('metrics')")
    kept.run("DROP TABLE metrics CASCADE; CREATE TABLE metrics (id int, at timestamptz, value int)")

    kept.run("SELECT lakets.forget_chronotable('metrics')")

    assert kept.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == 4
    assert kept.value("SELECT count(*) FROM _rollup_hourly") == 4
    for table in (
        "_chronotable_registry",
        "_chunk_metadata",
        "_rollup_registry",
        "_change_log",
        "_feed_proof",
    ):
        assert kept.value(f"SELECT count(*) FROM lakets.{table}") == 0
    kept.run("SELECT lakets.create_chronotable('metrics', 'at', '1 day'), lakets.enable_sync('metrics')")
    assert kept.value("SELECT shadow_table_name FROM lakets._chronotable_registry") != "_shadow_metrics"


def test_a_table_that_is_gone_is_named_with_the_way_out(kept: Stage, raises: Raises) -> None:
    kept.run("DROP TABLE metrics CASCADE")

    with raises("P0001", match="it was dropped"):
        kept.value(RETAIN, "metrics", "public")

    kept.run("SELECT lakets.drop_chronotable('metrics')")
    assert kept.value("SELECT count(*) FROM lakets._chronotable_registry") == 0


def test_reports_on_all_tables_pass_over_one_that_is_gone(kept: Stage, warned: list[str]) -> None:
    kept.table("other", days=[1])
    kept.sync("other")
    kept.run("UPDATE lakets._chronotable_registry SET tiering_enabled = true")
    kept.run("DROP TABLE metrics CASCADE")
    warned.clear()

    assert kept.column("SELECT table_name FROM lakets.show_tiering_status()") == ["other"]
    assert kept.run("SELECT * FROM lakets.lakets_metrics()")
    assert set(warned) == {"ChronoTable public.metrics no longer exists: it was dropped."}


def test_a_new_owner_gets_the_partitions_the_shadow_and_the_triggers(kept: Stage) -> None:
    role = f"heir_{kept.conn.info.dbname}"
    kept.sync()
    kept.run(f"CREATE ROLE {role}; GRANT CREATE ON SCHEMA public, lakets, lakets_cdf TO {role}")
    try:
        kept.run(f"ALTER TABLE metrics OWNER TO {role}")

        kept.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")

        owners = kept.column(
            "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname ~ 'metrics' AND relkind"
            " IN ('r', 'p')"
            " UNION SELECT proowner::regrole::text FROM pg_proc WHERE proname ~ '^_track_[0-9]'"
        )
        assert owners == [role]
        kept.run(f"SET ROLE {role}; INSERT INTO metrics VALUES (5, now(), 5); RESET ROLE")
        assert kept.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == 5
    finally:
        kept.run(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


# Partitions


def test_new_chunks_are_made_around_a_partition_made_by_hand_and_it_is_reported(
    kept: Stage, warned: list[str]
) -> None:
    kept.run("SET timezone = 'Asia/Kolkata'; SET datestyle = 'SQL, DMY'")
    kept.run(
        "CREATE TABLE fut PARTITION OF metrics FOR VALUES FROM ('2024-02-03 06:00+00') TO ('2024-02-04"
        " 06:00+00')"
    )

    made = kept.value(
        "SELECT lakets._ensure_partitions(id, p_range_start => '2024-02-01+00', p_range_end =>"
        " '2024-02-06+00')"
        " FROM lakets._chronotable_registry"
    )

    assert made == 5
    assert warned == [
        "These partitions of public.metrics were made or attached by hand, and are no chunks: public.fut."
    ]
    kept.run("SET timezone = 'UTC'; SET datestyle = 'ISO'")
    assert kept.column(
        "SELECT to_char(range_start, 'DD HH24') FROM lakets._chunk_metadata WHERE range_start >= '2024-02-01'"
        " AND range_start < '2024-02-07' ORDER BY range_start"
    ) == ["01 00", "02 00", "03 00", "04 06", "05 00"]
    kept.value(RETAIN, "metrics", "public")
    assert kept.value("SELECT to_regclass('fut')") == "fut"


def test_an_attached_partition_is_adopted_with_its_rows(kept: Stage, warned: list[str]) -> None:
    kept.rollup("daily", every="1 day")
    kept.sync()
    kept.run("CREATE TABLE came (LIKE metrics); INSERT INTO came VALUES (50, '2023-12-01 01:00+00', 50)")
    kept.run(
        "ALTER TABLE metrics ATTACH PARTITION came FOR VALUES FROM ('2023-12-01 00:00+00') TO"
        " ('2023-12-02 00:00+00')"
    )
    kept.run("CREATE TABLE endless PARTITION OF metrics FOR VALUES FROM (MINVALUE) TO ('2001-01-01+00')")

    assert kept.value("SELECT lakets.adopt_partitions('metrics')") == 1

    assert [text for text in warned if "endless cannot be a chunk" in text]
    kept.run("SELECT lakets.enable_sync('metrics')")
    kept.refresh("daily")
    assert kept.difference("daily") == []
    assert 50 in kept.column("SELECT id FROM lakets_cdf._shadow_metrics")
    kept.run("SELECT lakets.execute_retention('metrics', p_force => true)")
    assert kept.value("SELECT to_regclass('came')") is None


def test_a_detached_chunk_counts_as_dropped_until_it_is_adopted_again(kept: Stage, warned: list[str]) -> None:
    kept.rollup("daily", every="1 day")
    kept.run("ALTER TABLE metrics DETACH PARTITION metrics_20240102_000000")

    kept.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")

    assert warned == [
        "These chunks of public.metrics were detached or dropped by hand, and count as dropped:"
        " public.metrics_20240102_000000."
    ]
    kept.run("INSERT INTO metrics VALUES (99, '2024-01-02 03:00+00', 99)")
    kept.refresh("daily")
    assert kept.totals("daily")["2 0"] == 2, "the bucket keeps what it had"
    kept.run("DELETE FROM metrics WHERE id = 99")
    kept.run(
        "ALTER TABLE metrics ATTACH PARTITION metrics_20240102_000000"
        " FOR VALUES FROM ('2024-01-02+00') TO ('2024-01-03+00')"
    )
    assert kept.value("SELECT lakets.adopt_partitions('metrics')") == 1
    assert kept.statuses()[2] == "active"
    kept.refresh("daily")
    assert kept.difference("daily") == []


def test_a_renamed_chunk_is_dropped_and_its_namesake_is_not(kept: Stage) -> None:
    kept.run(
        "ALTER TABLE metrics_20240102_000000 RENAME TO renamed; CREATE TABLE metrics_20240102_000000 (v int)"
    )

    assert kept.value(RETAIN, "metrics", "public") == 4

    assert kept.value("SELECT to_regclass('renamed')") is None
    assert kept.value("SELECT to_regclass('metrics_20240102_000000')") is not None


# Publications


@pytest.mark.parametrize("identity", ["FULL", "USING INDEX by_value", "NOTHING"])
@pytest.mark.parametrize("key", ["", ", PRIMARY KEY (id, at)"], ids=["no key", "key"])
def test_the_replica_identity_is_kept_and_given_to_every_partition(
    stage: Stage, identity: str, key: str
) -> None:
    stage.run(f"CREATE TABLE metrics (id int NOT NULL, at timestamptz NOT NULL, value int NOT NULL{key})")
    stage.run("CREATE UNIQUE INDEX by_value ON metrics (value, at)")
    stage.run(f"ALTER TABLE metrics REPLICA IDENTITY {identity}")
    stage.run("INSERT INTO metrics VALUES (1, '2024-01-01', 1)")

    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '1 day')")
    stage.run("INSERT INTO metrics VALUES (2, '2024-01-09', 2)")
    stage.run("SELECT lakets._ensure_partitions(id, 0, 9) FROM lakets._chronotable_registry")

    wanted = {"FULL": "f", "NOTHING": "n"}.get(identity, "i")
    found = stage.column(
        "SELECT DISTINCT relreplident::text FROM pg_class WHERE relname ~ '^metrics' AND relkind IN"
        " ('r', 'p')"
        " AND relname <> 'metrics_default'"
    )
    assert found == [wanted]


@pytest.mark.parametrize("key", ["", ", PRIMARY KEY (id, at)"], ids=["no key", "key"])
def test_everything_of_ours_bears_being_published(stage: Stage, key: str) -> None:
    stage.run("CREATE PUBLICATION everything FOR ALL TABLES")
    stage.run(f"CREATE TABLE metrics (id int, at timestamptz, value int{key})")
    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '1 day'), lakets.enable_sync('metrics')")
    stage.run("SELECT lakets.add_retention_policy('metrics', '2 days')")
    stage.rollup("daily", every="1 day")
    stage.run("INSERT INTO metrics VALUES (1, '2024-01-01', 1), (2, '2024-01-05', 2)")

    stage.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")
    assert stage.refresh("daily")
    stage.run("INSERT INTO metrics VALUES (3, '2024-01-05', 2)")
    assert stage.refresh("daily")
    stage.run("INSERT INTO lakets._mirror_gap VALUES ('lakets_cdf._shadow_metrics')")
    stage.run(
        "SELECT lakets.enable_sync('metrics'), lakets._prune_change_log(reg) FROM"
        " lakets._chronotable_registry AS reg"
    )
    stage.run("SELECT lakets.execute_retention('metrics', p_force => true)")
    stage.run("SELECT lakets.drop_chronotable('metrics')")


def test_an_unlogged_table_becomes_a_logged_one_with_a_warning(kept: Stage, warned: list[str]) -> None:
    kept.run("CREATE UNLOGGED TABLE quick (at timestamptz); INSERT INTO quick VALUES (now())")

    kept.run("SELECT lakets.create_chronotable('quick', 'at')")

    assert warned == ["public.quick is UNLOGGED; its chunks will be logged."]
    assert kept.column("SELECT DISTINCT relpersistence::text FROM pg_class WHERE relname ~ '^quick'") == ["p"]


def test_constraints_that_are_not_valid_become_valid_or_are_refused(kept: Stage, raises: Raises) -> None:
    kept.run("CREATE TABLE device (id int PRIMARY KEY); INSERT INTO device VALUES (1)")
    kept.run(
        "CREATE TABLE loose (at timestamptz, device int); INSERT INTO loose VALUES (now(), 1), (now(), 2)"
    )
    kept.run("ALTER TABLE loose ADD FOREIGN KEY (device) REFERENCES device NOT VALID")
    with raises("23503"):
        kept.run("SELECT lakets.create_chronotable('loose', 'at')")
    kept.run("DELETE FROM loose WHERE device = 2")

    kept.run("SELECT lakets.create_chronotable('loose', 'at')")

    assert kept.column("SELECT convalidated FROM pg_constraint WHERE conrelid = 'loose'::regclass") == [True]
