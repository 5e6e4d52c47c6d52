"""A server with few locks: what locks many chunks does a part, or fails before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.engine import install_script
from airflow_provider_lakets.hooks.lakets import LakeTSHook
from tests.conftest import new_postgres
from tests.lab import FEED, Lab
from tests.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.stage import Raises

# Room to read about a hundred chunks, but not to drop them: that takes nine locks each.
FEW_LOCKS = {
    "max_locks_per_transaction": "10",
    "max_connections": "10",
    "max_prepared_transactions": "0",
    "max_wal_senders": "0",
    "max_replication_slots": "0",
    "wal_level": "replica",
    "max_worker_processes": "2",
    "autovacuum": "off",
}
MANY = 90


@pytest.fixture(scope="module")
def tight_server() -> Iterator[EmbeddedPostgres]:
    """A server with the smallest lock table, LakeTS, and a ChronoTable of many chunks."""
    with new_postgres(**FEW_LOCKS) as server:
        with psycopg.connect(server.ensure_database("many_chunks"), autocommit=True) as conn:
            conn.execute(install_script())
            stage = Stage(conn.info.dsn)
            table_id = stage.table(days=())
            ensure = "SELECT lakets._ensure_partitions(%s, 0, 0, '2024-01-01', '2024-01-01'::date + %s, 20)"
            while stage.value(ensure, table_id, MANY):
                pass
            stage.run(
                "INSERT INTO metrics SELECT n, '2024-01-01'::date + n, n FROM generate_series(0, 9) AS n"
            )
            stage.run("SELECT lakets.add_retention_policy('metrics', '1 day')")
            stage.rollup("hourly")
            stage.close()
        yield server


@pytest.fixture
def tight(tight_server: EmbeddedPostgres) -> Iterator[Stage]:
    stage = Stage(tight_server.ensure_database("tight", template="many_chunks"))
    yield stage
    stage.close()
    tight_server.drop_database("tight")


@pytest.fixture
def warnings(tight: Stage) -> list[str]:
    """The warnings of the session."""
    said: list[str] = []
    tight.run("SET client_min_messages = warning")
    tight.conn.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    return said


@pytest.fixture
def hook(tight: Stage, monkeypatch: pytest.MonkeyPatch) -> LakeTSHook:
    lab = Lab(tight.conninfo, "ours")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection())
    lab.conn.close()
    return LakeTSHook()


def standing(stage: Stage) -> int:
    """Return how many of the many chunks are left."""
    return int(
        stage.value(
            "SELECT count(*) FROM lakets._chunk_metadata"
            " WHERE status = 'active' AND range_start < '2025-01-01'"
        )
    )


DROPS = {
    "drop_chunks": "SELECT lakets.drop_chunks('metrics', '1 day')",
    "execute_retention": "SELECT lakets.execute_retention('metrics')",
    "forced retention": "SELECT lakets.execute_retention('metrics', p_force => true)",
}


def test_the_server_has_no_room_for_all_chunks_at_once(tight: Stage, raises: Raises) -> None:
    with raises("53200"):
        tight.run("DROP TABLE metrics")


@pytest.mark.parametrize("call", DROPS.values(), ids=DROPS)
def test_a_call_drops_what_fits_oldest_first_and_says_what_is_left(
    tight: Stage, warnings: list[str], call: str
) -> None:
    dropped = tight.value(call)

    assert 0 < dropped < MANY
    assert standing(tight) == MANY - dropped
    assert (
        tight.value("SELECT min(range_start)::date - '2024-01-01' FROM lakets.show_chunks('metrics')")
        == dropped
    )
    assert warnings == [
        f"{dropped} of the {MANY} chunks of public.metrics that can be dropped fit into one transaction;"
        f" {MANY - dropped} are left."
    ]


@pytest.mark.parametrize("call", DROPS.values(), ids=DROPS)
def test_call_after_call_drops_all(tight: Stage, call: str) -> None:
    while tight.value(call):
        pass

    assert standing(tight) == 0


def test_calls_in_one_transaction_share_its_room(tight: Stage) -> None:
    with tight.conn.transaction():
        first = tight.value(DROPS["drop_chunks"])
        second = tight.value(DROPS["drop_chunks"])

    assert 0 < second < first


def test_the_hook_drops_chunks_in_transactions_of_their_own(tight: Stage, hook: LakeTSHook) -> None:
    assert hook.drop_chunks("metrics", "1 day") == MANY
    assert standing(tight) == 0


def test_an_age_of_drop_chunks_and_a_bound_go_together(tight: Stage, raises: Raises) -> None:
    assert tight.value("SELECT lakets.drop_chunks('metrics', '1 day', p_max_chunks => 3)") == 3
    with raises("P0001", match="p_max_chunks must be 1 or more"):
        tight.run("SELECT lakets.drop_chunks('metrics', '1 day', p_max_chunks => 0)")


# The whole table


def test_a_table_that_does_not_fit_is_refused_before_anything_is_locked(tight: Stage, raises: Raises) -> None:
    with tight.conn.transaction():
        with raises("P0001", match=r"takes about \d+ locks") as refused, tight.conn.transaction():
            tight.run("SELECT lakets.drop_chronotable('metrics')")
        held = tight.value(
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'AccessExclusiveLock'"
        )

    assert "lakets.drop_chronotable_chunks('metrics', 'public')" in str(refused.value.diag.message_hint)
    assert held == 0
    assert standing(tight) == MANY


def test_what_the_refusal_advises_drops_the_table(tight: Stage) -> None:
    while tight.value("SELECT lakets.drop_chronotable_chunks('metrics', 'public')"):
        pass
    tight.run("SELECT lakets.drop_chronotable('metrics', 'public')")

    assert tight.value("SELECT to_regclass('metrics')") is None
    assert tight.value("SELECT count(*) FROM lakets._chronotable_registry") == 0
    assert tight.value("SELECT count(*) FROM lakets._rollup_registry") == 0


def test_the_hook_drops_a_table_that_does_not_fit(tight: Stage, hook: LakeTSHook) -> None:
    hook.drop_chronotable("metrics")

    assert tight.value("SELECT to_regclass('metrics')") is None


def test_a_drop_that_was_interrupted_is_resumed(tight: Stage, hook: LakeTSHook) -> None:
    first = tight.value("SELECT lakets.drop_chronotable_chunks('metrics', p_max_chunks => 2)")

    hook.drop_chronotable("metrics")

    assert first == 2
    assert tight.value("SELECT to_regclass('metrics')") is None


def test_the_hook_removes_what_is_left_of_a_table_dropped_by_hand(tight: Stage, hook: LakeTSHook) -> None:
    tight.table("small")
    tight.run("DROP TABLE small")

    hook.drop_chronotable("small")

    assert tight.column("SELECT table_name FROM lakets._chronotable_registry") == ["metrics"]


@pytest.mark.parametrize(
    "dependant",
    [
        "CREATE VIEW mine AS SELECT at FROM metrics",
        "CREATE VIEW mine AS SELECT bucket FROM _rollup_hourly",
        "CREATE TABLE mine (id int, at timestamptz, FOREIGN KEY (id, at) REFERENCES metrics)",
        "CREATE TABLE mine (whole metrics)",
        "CREATE FUNCTION mine() RETURNS SETOF metrics BEGIN ATOMIC SELECT * FROM metrics; END",
    ],
)
def test_no_chunk_goes_while_something_keeps_the_table(tight: Stage, raises: Raises, dependant: str) -> None:
    tight.run(dependant)

    with raises("P0001", match=r"other objects depend on it \(.*mine"):
        tight.run("SELECT lakets.drop_chronotable_chunks('metrics')")

    assert standing(tight) == MANY


def test_what_goes_with_the_table_keeps_nothing(tight: Stage) -> None:
    tight.table("small", days=range(1, 3))
    tight.rollup("of_small", reads="small")
    tight.run(
        "ALTER TABLE small ADD CHECK (value >= 0), ADD label text GENERATED ALWAYS AS (id::text) STORED;"
        "CREATE POLICY own ON small USING (value > 0);"
        "CREATE PUBLICATION pub FOR TABLE small;"
    )
    tight.run(
        "SELECT lakets.create_rollup_view(name, query_text) FROM lakets._rollup_registry"
        " WHERE name = 'of_small'"
    )

    # The next job writes the trigger functions for the new column, which takes locks too.
    tight.run("SELECT lakets._follow(tab) FROM lakets._chronotable('small', 'public') AS tab")

    assert tight.value("SELECT lakets.drop_chronotable_chunks('small')") > 1


# Chunks made


def test_missing_chunks_are_made_as_far_as_they_fit(tight: Stage, warnings: list[str]) -> None:
    ensure = (
        "SELECT lakets._ensure_partitions(id, 0, 0, '2025-01-01', '2025-04-01')"
        " FROM lakets._chronotable_registry"
    )
    made = []
    while count := tight.value(ensure):
        made.append(count)

    assert len(made) > 1
    assert sum(made) == 90
    assert len(warnings) == len(made) - 1
    assert (
        warnings[0] == f"{made[0]} chunks of public.metrics are made; more do not fit into one transaction."
    )


def test_a_table_with_rows_of_many_chunks_becomes_a_chronotable(tight: Stage, warnings: list[str]) -> None:
    tight.run(
        "CREATE TABLE wide (at timestamptz, v int);"
        "INSERT INTO wide SELECT '2020-01-01'::timestamptz + n * interval '1 day', n"
        " FROM generate_series(0, 119) AS n"
    )

    table_id = tight.value("SELECT lakets.create_chronotable('wide', 'at', '1 day')")

    assert "more do not fit" in warnings[0]
    assert tight.value("SELECT sum(v) FROM wide_default") > 0
    while tight.value("SELECT lakets._ensure_partitions(%s)", table_id):
        pass
    assert tight.value("SELECT count(*) FROM wide_default") == 0
    assert tight.run("SELECT count(*) FROM lakets.show_chunks('wide') WHERE range_end < '2021-01-01'") == [
        (120,)
    ]


def test_a_new_owner_gets_the_chunks_job_by_job_and_writers_go_on(tight: Stage) -> None:
    tight.run("SELECT lakets.enable_sync('metrics')")
    tight.run("CREATE ROLE heir; GRANT USAGE, CREATE ON SCHEMA public, lakets, lakets_cdf TO heir")
    tight.run("ALTER TABLE metrics OWNER TO heir")
    others = (
        "SELECT count(*) FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE inhparent = 'metrics'::regclass AND relowner <> 'heir'::regrole"
    )
    left = [tight.value(others)]
    while left[-1] and len(left) < MANY:
        tight.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")
        tight.run("UPDATE metrics SET value = value + 1 WHERE id = 5")
        left.append(tight.value(others))

    assert left[-1] == 0
    assert tight.value(UNLIKE) == 0
    assert len(left) > 2
    assert left == sorted(left, reverse=True)


# Partitions made by hand


def attach(stage: Stage, count: int) -> None:
    """Attach partitions by hand, with a row in each."""
    for n in range(count):
        day = f"'2023-01-01'::timestamptz + {n} * interval '1 day'"
        stage.run(
            f"DO $$ BEGIN EXECUTE format('CREATE TABLE hand_{n} PARTITION OF metrics FOR VALUES"
            f" FROM (%L) TO (%L)', {day}, {day} + interval '1 day'); END $$"
        )
        stage.run(f"INSERT INTO hand_{n} SELECT {n}, {day}, {n}")


ADOPT = "SELECT lakets.adopt_partitions('metrics')"
ADOPTED = "SELECT count(*) FROM lakets.show_chunks('metrics') WHERE range_start < '2024-01-01'"


def test_as_many_partitions_are_adopted_as_fit(tight: Stage, warnings: list[str]) -> None:
    attach(tight, 25)
    tight.run("CREATE TABLE endless PARTITION OF metrics FOR VALUES FROM (MINVALUE) TO ('2022-01-01')")

    adopted = tight.value(ADOPT)

    assert 0 < adopted < 25
    assert tight.value(ADOPTED) == adopted
    assert warnings == [
        "Partition public.endless cannot be a chunk: its range has no start or no end.",
        f"{adopted} partitions of public.metrics are chunks now; more do not fit into one transaction.",
    ]
    while tight.value(ADOPT):
        pass
    assert tight.value(ADOPTED) == 25
    tight.refresh("hourly")
    assert tight.value("SELECT count(*) FROM _rollup_hourly") == 35


def test_the_hook_adopts_all_and_none_can_be_written_directly(tight: Stage, hook: LakeTSHook) -> None:
    attach(tight, 25)

    assert hook.adopt_partitions("metrics") == 25
    assert tight.value("SELECT lakets._unguarded_partitions('metrics')::text") == "{}"


def test_a_table_of_many_chunks_that_is_gone_is_forgotten_at_once(tight: Stage) -> None:
    for chunk in tight.column(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'metrics'::regclass"
    ):
        tight.run(f"DROP TABLE {chunk}")
    tight.run("DROP TABLE metrics")

    tight.run("SELECT lakets.forget_chronotable('metrics')")

    assert tight.value("SELECT count(*) FROM lakets._chunk_metadata") == 0
    assert tight.value("SELECT count(*) FROM _rollup_hourly") == 10


# Mirrors in doubt

COMPARE = "SELECT lakets.compare_chunks('metrics', p_max_chunks => 1000)"
UNLIKE = "SELECT count(*) FROM (TABLE metrics EXCEPT ALL TABLE lakets_cdf._shadow_metrics) AS missing"


@pytest.fixture
def doubtful(tight: Stage) -> Stage:
    """The table is synced, and its shadow has lost everything."""
    tight.run("SELECT lakets.enable_sync('metrics')")
    tight.run(FEED)
    tight.run(
        "INSERT INTO wal2delta.tables"
        " VALUES ('lakets_cdf._shadow_metrics'::regclass, 'STREAMING', 'FFFFFFFF/0')"
    )
    tight.run("DELETE FROM lakets_cdf._shadow_metrics")
    tight.run("INSERT INTO lakets._mirror_gap VALUES ('lakets_cdf._shadow_metrics')")
    return tight


def test_as_many_chunks_are_compared_as_fit(doubtful: Stage) -> None:
    compared = []
    while count := doubtful.value(COMPARE):
        compared.append(count)

    assert len(compared) > 1
    assert sum(compared) == doubtful.value("SELECT count(*) FROM lakets.show_chunks('metrics')")
    assert doubtful.value(UNLIKE) == 0


def test_retention_compares_as_many_chunks_as_fit(doubtful: Stage) -> None:
    doubts = "SELECT cardinality(lakets._doubtful_chunks(reg)) FROM lakets._chronotable_registry AS reg"
    begun = doubtful.value(DROPS["execute_retention"])
    before = doubtful.value(doubts)

    dropped = doubtful.value(DROPS["execute_retention"])

    assert (begun, dropped) == (0, 0)
    assert 0 < doubtful.value(doubts) - (before - MANY) < MANY


def test_the_retention_job_compares_all_that_is_expired(doubtful: Stage, hook: LakeTSHook) -> None:
    doubtful.refresh("hourly")
    (first,) = hook.retain_all(["metrics"])
    doubtful.refresh("hourly")  # what was added to the shadow counts as changed
    (second,) = hook.retain_all(["metrics"])

    assert len(first.dropped) + len(second.dropped) == MANY
    assert len(second.dropped) == 10
    assert doubtful.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == 10


def test_sync_of_too_many_chunks_that_can_be_written_directly_says_what_to_do(
    tight: Stage, raises: Raises
) -> None:
    for chunk in tight.column(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'metrics'::regclass"
    ):
        tight.run(f"DROP TRIGGER lakets_no_direct_write ON {chunk}")

    with raises("P0001", match="can be written directly, and there is room") as refused:
        tight.run("SELECT lakets.enable_sync('metrics')")

    assert "lakets.guard_chunks" in str(refused.value.diag.message_hint)
    while tight.value("SELECT lakets.guard_chunks('metrics')"):
        pass
    tight.run("SELECT lakets.enable_sync('metrics')")
    assert tight.value(UNLIKE) == 0


# The lock budget


@pytest.mark.parametrize("name", ["metrics_20240101_000000", "_rollup_hourly"])
def test_the_count_of_locks_is_what_a_drop_takes(tight: Stage, name: str) -> None:
    reckoned = tight.value("SELECT lakets._locks_to_drop(%s::regclass)", name)

    with tight.conn.transaction(force_rollback=True):
        tight.run(f"DROP TABLE {name}")
        taken = tight.value(
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'AccessExclusiveLock'"
            " AND coalesce(relation, 0) NOT IN ('metrics'::regclass, 'metrics_default'::regclass)"
        )

    assert taken <= reckoned <= taken + 2
