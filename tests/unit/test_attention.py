"""Problems that need attention are found in a real Lakebase, each with its next step."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from airflow_provider_lakets.monitoring.attention import needs_attention
from airflow_provider_lakets.monitoring.data import gather
from airflow_provider_lakets.monitoring.finding import SEVERITIES, Attention, grouped, in_words
from airflow_provider_lakets.monitoring.of_slots import Slot, of_slots

if TYPE_CHECKING:
    from tests.lab import Lab


@pytest.fixture
def engine() -> str:
    return "ours"


def found(lab: Lab, **before: Any) -> dict[str, Attention]:
    """Return what needs attention, by its code."""
    return {one.code: one for one in needs_attention(gather(lab.hook(), **before))}


def test_a_fresh_table_with_chunks_ahead_needs_none(lab: Lab) -> None:
    lab.table()

    assert found(lab) == {}


def test_an_empty_synced_table_needs_none_before_its_first_row(lab: Lab) -> None:
    lab.table()
    lab.conn.execute("SELECT lakets.enable_sync('metrics')")

    assert found(lab) == {}


def test_rows_outside_all_chunks_are_counted(lab: Lab) -> None:
    lab.table()
    lab.conn.execute("INSERT INTO metrics VALUES ('1999-01-01', 'a', 1), ('1998-01-01', 'a', 1)")

    said = found(lab)["rows-outside-chunks"].said

    assert said.startswith("2 rows lie outside all chunks")


def test_many_rows_outside_all_chunks_are_not_counted_to_the_end(lab: Lab) -> None:
    lab.table()
    lab.conn.execute("INSERT INTO metrics SELECT '1999-01-01', 'a', n FROM generate_series(1, 1001) AS n")

    assert "more than 1000 rows" in found(lab)["rows-outside-chunks"].said


def test_tiering_without_a_feed_is_a_contradiction(lab: Lab) -> None:
    lab.table()
    lab.conn.execute("SELECT lakets.add_tiering_policy('metrics', '7 days')")

    one = found(lab)["tiering-without-feed"]

    assert (one.severity, "enable_sync" in one.advice) == ("warn", True)


def test_retention_that_comes_before_tiering_is_a_contradiction(lab: Lab) -> None:
    lab.table()
    lab.conn.execute("SELECT lakets.enable_sync('metrics')")
    lab.conn.execute("SELECT lakets.add_tiering_policy('metrics', '30 days')")
    lab.conn.execute("SELECT lakets.add_retention_policy('metrics', '7 days')")

    assert "retention (7 days) is not longer than tiering (30 days)" in (
        found(lab)["retention-before-tiering"].said
    )


def test_chunks_longer_than_retention_are_a_contradiction(lab: Lab) -> None:
    lab.table()
    lab.conn.execute("SELECT lakets.add_retention_policy('metrics', '12 hours')")

    assert "longer than retention" in found(lab)["chunk-longer-than-policy"].said


def test_a_table_without_chunks_ahead_is_named(lab: Lab) -> None:
    lab.table()
    lab.conn.execute("DELETE FROM lakets._chunk_metadata WHERE range_start > now()")

    assert "lakets run partitions" in found(lab)["no-chunks-ahead"].advice


def test_a_table_in_the_place_of_another_is_left_alone_and_said(lab: Lab) -> None:
    lab.table()
    lab.conn.execute("ALTER TABLE metrics RENAME TO old; CREATE TABLE metrics (LIKE old)")
    lab.conn.execute("DROP TABLE old")

    one = found(lab)["table-changed"]

    assert one.severity == "fail"
    assert "the jobs skip it" in one.said


def test_what_an_upgrade_left_is_named_with_the_statement_that_mends_it(lab: Lab) -> None:
    lab.synced(days=3)
    lab.flush()
    lab.conn.execute("ALTER TABLE metrics ADD COLUMN later integer")
    lab.conn.execute("ALTER TABLE lakets_cdf._shadow_metrics DROP COLUMN value")

    one = found(lab)["repair"]

    assert (one.subject, one.kind) == ("public.metrics", "table")
    assert "lakets.enable_sync('metrics', 'public')" in one.advice


def test_a_refused_rollup_is_said_once(lab: Lab) -> None:
    lab.table(days=2)
    lab.rollup("hourly")
    lab.conn.execute("UPDATE lakets._rollup_registry SET definition = NULL")

    about = [one.code for one in needs_attention(gather(lab.hook())) if one.subject == "hourly"]

    assert about == ["rollup-refused"]


def test_the_documents_list_each_code_with_its_severity() -> None:
    document = (Path(__file__).parents[2] / "docs/monitoring.md").read_text()

    rows = re.findall(r"^\| `([a-z-]+)` \| (fail|warn|info) \|", document, re.MULTILINE)

    assert dict(rows) == SEVERITIES


def test_a_mirror_that_is_locked_holds_up_no_look(lab: Lab) -> None:
    lab.synced(days=1)
    with psycopg.connect(lab.conninfo) as other:
        other.execute("LOCK TABLE lakets_cdf._shadow_metrics IN ACCESS EXCLUSIVE MODE")

        assert "feed-not-streaming" in found(lab)


def test_the_slot_that_a_feed_left_is_named_only_while_the_feed_stands_still() -> None:
    slots = [Slot("left", is_active=False, is_lost=False), Slot("lost", is_active=False, is_lost=True)]

    moving, still = ([*of_slots(slots, stands_still=stands_still)] for stands_still in (False, True))

    assert [one.code for one in moving] == ["slot-lost"]
    assert [(one.subject, one.code) for one in still] == [("left", "slot-unread"), ("lost", "slot-lost")]


def test_what_differs_in_kind_is_not_said_to_be_alike() -> None:
    said = [
        "job tier failed, last 3 min ago: no",
        "job retain failed, last 4 min ago: no",
        "job tier failed, last 2 h ago: it is full",
    ]

    groups = grouped(Attention(f"public.t_{n}", one, "Mend it.", "job-failed") for n, one in enumerate(said))

    assert [[one.subject for one in group] for group in groups] == [
        ["public.t_0", "public.t_2"],
        ["public.t_1"],
    ]
    assert in_words(groups[0]) == f"2 tables: public.t_0, public.t_2; the first of them: {said[0]}"


def test_a_session_that_holds_a_table_for_long_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_lakets.monitoring import troubles

    lab.table()
    at_once = troubles.HOLDERS.replace("'10 s'", "'0 s'")
    monkeypatch.setattr(troubles, "HOLDERS", at_once)
    with psycopg.connect(lab.conninfo, application_name="somebody") as other:
        other.execute("LOCK TABLE ONLY metrics IN ACCESS EXCLUSIVE MODE")

        said = found(lab)["busy"].said

    assert "(somebody) has a lock on it" in said


def test_a_lock_of_a_moment_is_not_worth_a_word(lab: Lab) -> None:
    lab.table()
    with psycopg.connect(lab.conninfo) as other:
        other.execute("INSERT INTO metrics VALUES (now(), 'a', 1)")

        assert found(lab) == {}


def test_a_feed_that_does_not_move_between_two_looks_is_said(lab: Lab) -> None:
    lab.synced(days=1)
    lab.flush()
    lab.conn.execute("INSERT INTO metrics VALUES (now(), 'b', 1)")
    lab.conn.execute("INSERT INTO metrics VALUES (now(), 'b', 2)")
    before = gather(lab.hook())
    before.at = before.at.replace(year=before.at.year - 1)

    assert "has not moved for" in found(lab, before=before)["feed-stands-still"].said
    lab.flush()
    assert "feed-stands-still" not in found(lab, before=before)


def test_a_feed_whose_state_may_not_be_read_is_told_from_one_that_is_not_there(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.synced(days=1)
    absent = found(lab)["feed-not-streaming"]
    lab.flush()
    lab.conn.execute("CREATE ROLE blind LOGIN; GRANT USAGE ON SCHEMA lakets, lakets_cdf, public TO blind")
    lab.conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA lakets, lakets_cdf, public TO blind")
    lab.conn.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lakets TO blind")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(login="blind"))

    try:
        blind = found(lab)["feed-not-streaming"]
    finally:
        lab.conn.execute("DROP OWNED BY blind; DROP ROLE blind")

    assert "Start a change data feed" in absent.advice
    assert "may not read wal2delta.tables" in blind.said


def test_what_is_left_run_after_run_is_known_of_each_table_of_a_fleet(lab: Lab) -> None:
    """The newest rows of the log are of other tables."""
    lab.table("quiet")
    lab.table("loud")
    note = "SELECT lakets._note_job_run('partitions', now() - interval '1 h' * %s, 1, %s)"
    for ago in (4, 3, 2, 1):
        lab.conn.execute(
            note, [ago, '[{"name": "public.quiet", "outcome": "contended", "detail": "locked"}]']
        )
    note = "SELECT lakets._note_job_run('partitions', now(), 1, %s)"
    for _ in range(80):
        lab.conn.execute(note, ['[{"name": "public.loud", "outcome": "created", "counts": {"created": 1}}]'])

    one = found(lab)["job-contended"]

    assert (one.subject, "in 4 runs" in one.said) == ("public.quiet", True)


def test_what_failed_is_over_once_a_run_finds_nothing_to_do(lab: Lab) -> None:
    lab.table()
    note = "SELECT lakets._note_job_run('partitions', now(), 1, %s)"
    lab.conn.execute(note, ['[{"name": "public.metrics", "outcome": "failed", "detail": "no"}]'])
    assert "job-failed" in found(lab)
    lab.conn.execute(note, ["[]"])

    assert found(lab) == {}


def test_a_refresh_that_failed_is_over_once_somebody_refreshed_the_rollup(lab: Lab) -> None:
    lab.table(days=2)
    lab.rollup("hourly")
    note = "SELECT lakets._note_job_run('refresh', now() - interval '1 min', 1, %s)"
    lab.conn.execute("UPDATE lakets._rollup_registry SET last_refreshed_at = now() - interval '1 h'")
    lab.conn.execute(note, ['[{"name": "hourly", "outcome": "failed", "detail": "no"}]'])
    assert "job-failed" in found(lab)
    lab.conn.execute("SELECT lakets.refresh_rollup('hourly', true)")  # past the jobs, which log

    assert "job-failed" not in found(lab)


def test_chunks_that_are_not_proved_are_said_at_the_third_run(lab: Lab) -> None:
    """A run logs each batch separately; the batches of a DAG run have the same runner."""
    lab.table()

    def runs(*batches: tuple[str, str]) -> bool:
        lab.conn.execute("DELETE FROM lakets._job_run")
        for runner, ago in batches:
            lab.conn.execute(
                "INSERT INTO lakets._job_run (job, relation, started_at, seconds, outcome, counts, runner)"
                " VALUES ('tier', 'public.metrics', now() - %s::interval, 1, 'deferred', '{}', %s)",
                [ago, runner],
            )
        return "chunks-unproved" in found(lab)

    assert not runs(("one", "9 min"), ("one", "9 min"), ("one", "9 min"), ("two", "1 min"), ("two", "1 min"))
    assert not runs(("cron", "2 days"), ("cron", "1 day"), ("cron", "1 day"), ("cron", "1 day"))
    assert runs(("one", "9 min"), ("two", "9 min"), ("three", "9 min"))
    assert runs(("cron", "3 days"), ("cron", "2 days"), ("cron", "1 day"))
