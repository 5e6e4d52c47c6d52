"""Trimming: what is removed from the shadow after its chunk was dropped, what stays and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.sql.trim.scene import RETAIN, expire, prepared, report_log

if TYPE_CHECKING:
    from tests.stage import HandFeed, Raises, Stage


TRIM = "SELECT lakets.trim_shadow('metrics')"


SHADOW = "SELECT id FROM lakets_cdf._shadow_metrics ORDER BY id"


def drop(stage: Stage, feed: HandFeed) -> int:
    """Flush everything and drop what is due."""
    feed.flush()
    stage.run("SELECT lakets._prove(reg) FROM lakets._chronotable_registry AS reg")
    feed.flush()
    feed.move(stage.position())
    return int(stage.value(RETAIN))


def reasons(stage: Stage) -> dict[int, str | None]:
    return dict(
        stage.run(
            "SELECT extract(day FROM range_start AT TIME ZONE 'UTC')::integer, blocked_by"
            " FROM lakets.trim_report('metrics')"
        )
    )


# What goes


def test_rows_of_dropped_chunks_leave_the_shadow(stage: Stage, feed: HandFeed) -> None:
    assert stage.column(SHADOW) == [1, 2, 3, 4]
    assert reasons(stage) == {1: None, 2: None}

    assert stage.value(TRIM) == 2
    assert stage.column(SHADOW) == [3, 4]
    assert reasons(stage) == {}


def test_second_run_finds_nothing_left(stage: Stage, feed: HandFeed) -> None:
    stage.run(TRIM)
    before = stage.run("TABLE lakets_cdf._trim_log")

    assert stage.value(TRIM) == 0
    assert stage.run("TABLE lakets_cdf._trim_log") == before


def test_a_transaction_takes_no_more_rows_than_asked(stage: Stage) -> None:
    stage.synced(rows=False)
    for number in range(7):
        stage.run("INSERT INTO metrics VALUES (%s, %s, 0)", number, stage.at(1 + number // 4))
    expire(stage, 3)
    report_log(stage, "STREAMING")
    stage.run("SELECT lakets.drop_chunks('metrics', '1 day')")
    feed = stage._feeds[0]
    for _ in range(2):
        feed.flush()
        stage.run("SELECT lakets._prove(reg) FROM lakets._chronotable_registry AS reg")

    taken = [stage.value("SELECT lakets.trim_shadow('metrics', p_max_rows => 3)") for _ in range(4)]

    assert taken == [3, 3, 1, 0]
    assert reasons(stage) == {}


def test_each_transaction_is_noted_with_what_it_took(stage: Stage, keyed: HandFeed) -> None:
    with stage.conn.transaction():
        xid = stage.value("SELECT pg_current_xact_id()::text::bigint")
        stage.run(TRIM)

    assert stage.run(
        "SELECT shadow, xid, row_count, range_start = %s, range_end = %s FROM lakets_cdf._trim_log"
        " WHERE row_count > 0",
        *(stage.at(1), stage.at(3)),
    ) == [("_shadow_metrics", xid, 2, True, True)]


def test_the_feed_can_take_the_log_up(stage: Stage) -> None:
    stage.synced()
    expire(stage, 3)

    assert stage.value("SELECT count(*) FROM lakets_cdf._trim_log") == 1
    assert stage.value("SELECT relreplident::text FROM pg_class WHERE relname = '_trim_log'") == "f"


def test_what_was_dropped_before_it_was_asked_for_goes_too(stage: Stage) -> None:
    feed = stage.synced()
    stage.tier(1)
    assert stage.value(RETAIN) == 4
    assert reasons(stage)[1] == "its retention policy does not have p_trim_shadow"
    expire(stage, 3)
    report_log(stage, "STREAMING")
    feed.flush()

    assert stage.value(TRIM) == 4
    assert stage.column(SHADOW) == []


def test_room_is_used_again(stage: Stage) -> None:
    # A day comes, a day goes: the shadow holds two at most.
    feed = stage.synced(days=range(1, 13), rows=False)
    sizes = []
    for day in range(1, 11):
        stage.run(
            "INSERT INTO metrics SELECT n, %s::timestamptz + n * interval '1 second', n"
            " FROM generate_series(1, 3000) AS n",
            stage.at(day),
        )
        expire(stage, day)
        report_log(stage, "STREAMING")
        assert drop(stage, feed) == (day > 1)
        assert stage.value(TRIM) == (3000 if day > 1 else 0)
        stage.run("VACUUM lakets_cdf._shadow_metrics")
        sizes.append(stage.value("SELECT pg_total_relation_size('lakets_cdf._shadow_metrics')"))

    assert max(sizes[2:]) <= max(sizes[:2])


# What stays


def test_nothing_is_trimmed_unless_the_policy_says_so(stage: Stage) -> None:
    feed = stage.synced()
    stage.tier(1)
    report_log(stage, "STREAMING")
    assert stage.value(RETAIN) == 4
    feed.flush()

    assert stage.value(TRIM) == 0
    assert stage.column(SHADOW) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "late",
    [[(1, 1)], [(1, 1), (2, 2)], [(1, 9)], [(8, 1), (1, 1)]],
    ids=["like the dropped", "both", "same key", "one of two"],
)
def test_a_late_row_keeps_its_copy(stage: Stage, feed: HandFeed, late: list[tuple[int, int]]) -> None:
    for number, value in late:
        day = min(number, 2)
        stage.run("INSERT INTO metrics VALUES (%s, %s, %s)", number, stage.at(day, 12), value)
    for _ in range(2):
        feed.flush()
        stage.run("SELECT lakets._prove(reg) FROM lakets._chronotable_registry AS reg")

    assert stage.value(TRIM) == 2
    assert stage.run("TABLE lakets_cdf._shadow_metrics EXCEPT ALL TABLE metrics") == []
    assert stage.run("TABLE metrics EXCEPT ALL TABLE lakets_cdf._shadow_metrics") == []

    stage.run("DELETE FROM metrics")
    assert stage.column(SHADOW) == []
    assert stage.value("SELECT count(*) FROM lakets._mirror_gap") == 0


def test_as_many_copies_stay_as_the_table_has(stage: Stage) -> None:
    feed = prepared(stage, keyed=False)
    stage.run("INSERT INTO metrics SELECT 1, %s, 1 FROM generate_series(1, 3)", stage.at(1, 12))
    for _ in range(2):
        feed.flush()
        stage.run("SELECT lakets._prove(reg) FROM lakets._chronotable_registry AS reg")

    assert stage.value(TRIM) == 2
    assert stage.column(SHADOW) == [1, 1, 1, 3, 4]


def test_rows_without_a_time_or_beyond_all_time_stay(stage: Stage) -> None:
    feed = prepared(stage, keyed=False)
    stage.run("INSERT INTO metrics VALUES (10, NULL, 0), (11, 'infinity', 0), (12, '-infinity', 0)")
    feed.flush()

    assert stage.value(TRIM) == 2
    assert stage.column(SHADOW) == [3, 4, 10, 11, 12]


@pytest.mark.parametrize("status", [None, "PENDING", "SNAPSHOTTING", "SKIPPED"])
def test_nothing_is_trimmed_while_the_log_is_not_streamed(
    stage: Stage, keyed: HandFeed, status: str | None
) -> None:
    report_log(stage, status)

    assert stage.value(TRIM) == 0
    assert stage.column(SHADOW) == [1, 2, 3, 4]
    assert reasons(stage)[1] == (
        f"the change feed of lakets_cdf._trim_log is not streaming: {status or 'NONE'}"
    )


@pytest.mark.parametrize("status", ["PENDING", "SNAPSHOTTING", "SKIPPED"])
def test_nothing_is_trimmed_while_the_shadow_is_not_streamed(
    stage: Stage, keyed: HandFeed, status: str
) -> None:
    keyed.report(status)

    assert stage.value(TRIM) == 0
    assert "not streaming" in (reasons(stage)[1] or "")


def test_what_was_dropped_by_force_stays_until_it_is_flushed(stage: Stage, keyed: HandFeed) -> None:
    stage.run("INSERT INTO metrics VALUES (30, %s, 30)", stage.at(3))
    expire(stage, 4)
    assert stage.value("SELECT lakets.execute_retention('metrics', p_force => true)") == 1

    assert stage.value(TRIM) == 2
    assert stage.column(SHADOW) == [3, 4, 30]
    assert reasons(stage) == {3: "not durable: changes to it are not known to be flushed yet"}
    for _ in range(2):
        keyed.flush()
        stage.run(TRIM)
    assert stage.column(SHADOW) == [4]


def test_an_idle_feed_is_made_to_move_for_what_waits(stage: Stage) -> None:
    # Two writers overlapped and fell idle: nothing but a fence tells that both are flushed.
    feed = stage.synced()
    expire(stage, 2)
    report_log(stage, "STREAMING")
    first, second = (psycopg.connect(stage.conninfo) for _ in range(2))
    with first, second:
        first.execute("INSERT INTO metrics VALUES (10, %s, 0)", [stage.at(1)])
        second.execute("INSERT INTO metrics VALUES (11, %s, 0)", [stage.at(1)])
        second.commit()
        first.commit()
    assert stage.value("SELECT lakets.execute_retention('metrics', p_force => true)") == 1
    feed.flush()

    rounds = 0
    while reasons(stage) and rounds < 5:
        stage.run(TRIM)
        feed.flush()
        rounds += 1

    assert stage.column(SHADOW) == [2, 3, 4]


def test_a_mirror_that_may_lack_changes_is_not_trimmed(stage: Stage, keyed: HandFeed) -> None:
    stage.run("INSERT INTO lakets._mirror_gap VALUES ('lakets_cdf._shadow_metrics')")

    assert stage.value(TRIM) == 0
    assert "enable_sync" in (reasons(stage)[1] or "")


def test_a_table_without_sync_has_nothing_to_trim(stage: Stage, keyed: HandFeed) -> None:
    stage.run("SELECT lakets.disable_sync('metrics')")

    assert stage.value(TRIM) == 0
    assert reasons(stage) == {}


def test_a_policy_that_hides_late_rows_is_an_error(stage: Stage, keyed: HandFeed, raises: Raises) -> None:
    role = f"owner_{stage.conn.info.dbname}"
    stage.run(f"CREATE ROLE {role}")
    try:
        stage.run(f"GRANT ALL ON SCHEMA lakets, lakets_cdf, public, wal2delta TO {role}")
        stage.run(
            f"GRANT ALL ON ALL TABLES IN SCHEMA lakets, lakets_cdf, public, wal2delta TO {role};"
            f" GRANT USAGE ON SCHEMA lakets, lakets_cdf TO {role}"
        )
        stage.run(f"ALTER TABLE metrics OWNER TO {role}")
        stage.run("SELECT lakets.enable_sync('metrics')")
        stage.run("ALTER TABLE metrics ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        with raises("42501", match="row-level security"), stage.conn.transaction():
            stage.run(f"SET LOCAL ROLE {role}")
            stage.run(TRIM)
    finally:
        stage.run(f"ALTER TABLE metrics OWNER TO postgres; DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


# A transaction of its own


CHANGES = {
    "insert": "INSERT INTO metrics VALUES (90, '2024-01-01', 0)",
    "update": "UPDATE metrics SET value = 0",
    "delete": "DELETE FROM metrics WHERE id = 3",
    "truncate": "TRUNCATE metrics",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_a_trim_fails_with_it(
    stage: Stage, keyed: HandFeed, raises: Raises, change: str
) -> None:
    with raises("P0001", match="_shadow_metrics"), stage.conn.transaction():
        assert stage.value(TRIM) == 2
        stage.run(CHANGES[change])

    assert stage.column(SHADOW) == [1, 2, 3, 4]


@pytest.mark.parametrize("change", ["update", "delete"])
def test_a_trim_after_a_change_fails_with_it(
    stage: Stage, keyed: HandFeed, raises: Raises, change: str
) -> None:
    with raises("P0001", match="_shadow_metrics"), stage.conn.transaction():
        stage.run(CHANGES[change])
        assert stage.value(TRIM) == 2

    assert stage.column(SHADOW) == [1, 2, 3, 4]


def test_two_trims_may_share_one(stage: Stage, keyed: HandFeed) -> None:
    with stage.conn.transaction():
        for _ in range(2):
            assert stage.value("SELECT lakets.trim_shadow('metrics', p_max_rows => 1)") == 1

    assert stage.column(SHADOW) == [3, 4]


def test_a_transaction_that_cannot_see_new_commits_is_refused(
    stage: Stage, keyed: HandFeed, raises: Raises
) -> None:
    stage.conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    with raises("P0001", match="read committed"), stage.conn.transaction():
        stage.run(TRIM)


@pytest.mark.parametrize("most", ["0", "-1", "NULL"])
def test_a_batch_must_hold_a_row(stage: Stage, raises: Raises, most: str) -> None:
    stage.table()

    with raises("P0001", match="p_max_rows"):
        stage.run(f"SELECT lakets.trim_shadow('metrics', p_max_rows => {most})")


@pytest.mark.parametrize("call", ["trim_shadow('nowhere')", "trim_report('nowhere')"])
def test_unknown_table_is_named(stage: Stage, raises: Raises, call: str) -> None:
    with raises("P0001", match="nowhere"):
        stage.run(f"SELECT * FROM lakets.{call}")
