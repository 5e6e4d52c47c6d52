"""LakeTSHook on a real server, against LakeTS 0.1.x and against our engine."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from airflow_provider_lakets.exceptions import LakeTSArgumentError, LakeTSContendedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab import Lab


@pytest.fixture
def connect_to_lab(lab: Lab) -> Iterator[psycopg.Connection]:
    """A second session, which ends before the database is dropped."""
    with psycopg.connect(lab.conninfo, autocommit=True) as session:
        yield session


def test_lists_chronotables_with_their_policies(lab: Lab) -> None:
    lab.table("plain")
    lab.table("kept", schema="other")
    lab.conn.execute("SELECT lakets.add_retention_policy('kept', '30 days', 'other')")

    tables = {table.name: table for table in lab.hook().chronotables()}

    assert tables["public.plain"].policies == []
    assert tables["other.kept"].policies == ["retention"]
    assert tables["other.kept"].chunk_interval == "1 day"


@pytest.mark.parametrize(
    ("policy", "expected"), [("tiering", ["public.both"]), ("retention", ["public.both", "public.dropped"])]
)
def test_tiered_retention_counts_as_both_policies(lab: Lab, policy: str, expected: list[str]) -> None:
    lab.synced("both", days=1)
    lab.table("dropped")
    lab.conn.execute("SELECT lakets.add_retention_policy('dropped', '30 days')")
    lab.table("neither")

    tables = lab.hook().chronotables(policy=policy)

    assert [table.name for table in tables] == expected


def test_a_bare_name_means_schema_public(lab: Lab) -> None:
    lab.table("metrics", schema="other")
    lab.table("metrics")

    tables = lab.hook().chronotables(["metrics", "other.metrics"])

    assert [table.name for table in tables] == ["public.metrics", "other.metrics"]


def test_a_text_is_one_name(lab: Lab) -> None:
    lab.synced(days=5)
    hook, chunk = lab.hook(), lab.old_chunks()[0]

    done = [*hook.partition("public.metrics"), *hook.tier(chunk), *hook.retain_all("metrics")]
    plans = [*hook.plan_partitions("metrics"), *hook.plan_tiering(chunk), *hook.plan_retentions("metrics")]

    assert [one.name for one in done] == ["public.metrics", chunk, "public.metrics"]
    assert [one.name for one in plans] == ["public.metrics", chunk, "public.metrics"]


def test_an_unknown_table_is_refused_with_the_known_ones(lab: Lab) -> None:
    lab.table("metrics")

    with pytest.raises(
        LakeTSArgumentError, match=r"'metric' is not a ChronoTable.*there are: public\.metrics"
    ):
        lab.hook().partition(["metric"])


def test_an_unknown_table_does_not_stop_the_others(lab: Lab) -> None:
    lab.table("metrics")
    names = ["metric", "metrics"]

    plans = lab.hook().plan_partitions(names, future_count=5)
    unknown, known = lab.hook().partition(names, future_count=5)

    assert [(plan.name, plan.outcome) for plan in plans] == [
        ("metric", "failed"),
        ("public.metrics", "planned"),
    ]
    assert (unknown.outcome, unknown.retryable, known.outcome) == ("failed", False, "created")
    assert "'metric' is not a ChronoTable" in str(unknown.detail)
    assert len(known.created) == 2


def test_partition_says_which_chunks_it_created(lab: Lab) -> None:
    lab.table("metrics")

    (result,) = lab.hook().partition(future_count=5)

    assert result.outcome == "created"
    assert len(result.created) == 2  # three existed already
    assert (
        result.created
        == lab.values("SELECT chunk_name FROM lakets._chunk_metadata ORDER BY range_start DESC LIMIT 2")[::-1]
    )


def test_partition_finds_nothing_to_do_the_second_time(lab: Lab) -> None:
    lab.table("metrics")
    hook = lab.hook()
    hook.partition(future_count=5)

    (result,) = hook.partition(future_count=5)

    assert (result.outcome, result.created) == ("unchanged", [])


def test_partition_makes_the_chunks_of_a_range(lab: Lab) -> None:
    lab.table("metrics")
    start = datetime(2024, 2, 28, tzinfo=timezone.utc)

    (result,) = lab.hook().partition(["metrics"], range_start=start, range_end=start + timedelta(days=3))

    assert result.created == [
        "public.metrics_20240228_000000",
        "public.metrics_20240229_000000",
        "public.metrics_20240301_000000",
    ]


@pytest.mark.parametrize("engine", ["ours"])  # 0.1.x refuses the second
def test_partition_tells_tables_apart_whose_dotted_names_are_spelt_alike(lab: Lab) -> None:
    for schema, table in (("a", "b.c"), ("a.b", "c")):
        lab.conn.execute(f'CREATE SCHEMA "{schema}"')
        lab.conn.execute(f'CREATE TABLE "{schema}"."{table}" (at timestamptz)')
        lab.conn.execute(
            "SELECT lakets.create_chronotable(%s, 'at', '1 day', p_schema_name => %s)", [table, schema]
        )

    results = lab.hook().partition(future_count=5)

    assert [(result.name, bool(result.created)) for result in results] == [("a.b.c", True)] * 2


@pytest.mark.parametrize(
    ("spelt", "schema", "table"),
    [
        ('"Plant"."Metrics"', "Plant", "Metrics"),
        ('public."Metrics"', "public", "Metrics"),
        ('"a.b"."c ""d"""', "a.b", 'c "d"'),
        ('"metrics"', "public", "metrics"),
    ],
)
def test_a_name_in_quotes_as_in_sql_is_that_table(lab: Lab, spelt: str, schema: str, table: str) -> None:
    name = sql.Identifier(schema, table)
    lab.conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    lab.conn.execute(sql.SQL("CREATE TABLE {} (at timestamptz)").format(name))
    lab.value("SELECT lakets.create_chronotable(%s, 'at', '1 day', p_schema_name => %s)", table, schema)
    hook = lab.hook()

    names = [*hook.partition(spelt), hook.retain(spelt), *hook.plan_partitions([spelt, "metric"])]

    assert [one.name for one in names] == [f"{schema}.{table}"] * 3 + ["metric"]
    with pytest.raises(LakeTSArgumentError, match=r"^'Plant\.metrics' is not a ChronoTable"):
        hook.retain('"Plant"."metrics"')


def test_partition_names_chunks_of_a_call_whose_answer_was_lost(
    lab: Lab, week: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = lab.hook()
    real = hook.ensure_partitions

    def called_twice(*arguments: Any, **named: Any) -> int:
        real(*arguments, **named)
        return real(*arguments, **named)

    monkeypatch.setattr(hook, "ensure_partitions", called_twice)

    (result,) = hook.partition(["metrics"], **week)

    assert len(result.created) == 7


@pytest.fixture
def week(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the arguments that make seven chunks, and let a transaction make two."""
    monkeypatch.setattr("airflow_provider_lakets.hooks.lakets.CREATE_BATCH", 2)
    lab.table("metrics")
    start = datetime(2024, 2, 26, tzinfo=timezone.utc)
    return {"range_start": start, "range_end": start + timedelta(days=7)}


def test_partition_creates_a_few_at_a_time_where_the_engine_can(lab: Lab, week: dict[str, Any]) -> None:
    (result,) = lab.hook().partition(["metrics"], **week)

    transactions = lab.value(
        "SELECT count(DISTINCT xmin::text) FROM lakets._chunk_metadata WHERE range_start < '2024-12-31'"
    )
    assert [chunk[-15:-7] for chunk in result.created] == [f"202402{day}" for day in range(26, 30)] + [
        f"2024030{day}" for day in range(1, 4)
    ]
    assert transactions == (1 if lab.engine == "0.1" else 4)


def test_partition_tells_what_was_created_before_it_was_contended(
    lab: Lab, week: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = lab.hook(tries=1)
    real = hook.ensure_partitions
    calls = 0

    def creates_and_is_contended(*arguments: Any, **named: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise LakeTSContendedError("busy")
        return real(*arguments, **named)

    monkeypatch.setattr(hook, "ensure_partitions", creates_and_is_contended)

    (result,) = hook.partition(["metrics"], **week)

    if lab.engine == "0.1":  # all in one transaction
        assert (result.outcome, len(result.created)) == ("created", 7)
    else:
        assert (result.outcome, len(result.created)) == ("contended", 4)


def test_no_candidates_without_a_feed(lab: Lab) -> None:
    lab.synced(days=8)

    assert lab.hook().tier_candidates() == []


def test_candidates_are_old_chunks_of_streaming_tables_oldest_first(lab: Lab) -> None:
    lab.synced("flights", days=8)
    lab.synced("weather", days=8)
    lab.flush("weather")

    candidates = lab.hook().tier_candidates()

    names = [candidate.chunk_name for candidate in candidates]
    assert names == [name for name in lab.old_chunks("weather") if name in names]
    assert 5 <= len(names) <= 7  # days 3 to 8 back, and what the engine made before


def test_candidates_can_be_limited_to_tables(lab: Lab) -> None:
    lab.synced("flights", days=8)
    lab.synced("weather", days=8)
    lab.flush("weather")
    lab.flush("flights")

    candidates = lab.hook().tier_candidates(["public.flights"])

    assert {candidate.chunk_name[:14] for candidate in candidates} == {"public.flights"}


def test_tier_flags_what_is_flushed(lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    chunk = lab.old_chunks()[0]

    (result,) = lab.hook().tier([chunk])

    assert (result.name, result.outcome) == (chunk, "tiered")
    assert lab.value("SELECT status FROM lakets._chunk_metadata WHERE chunk_name = %s", chunk) == "tiered"


def test_tier_defers_with_a_reason_what_no_feed_has_flushed(lab: Lab) -> None:
    lab.synced(days=8)
    chunk = lab.old_chunks()[0]

    (result,) = lab.hook().tier([chunk])

    assert result.outcome == "deferred"
    assert result.ok
    assert "NONE" in str(result.detail) or "not" in str(result.detail)


def test_tier_goes_on_after_a_chunk_that_is_refused(lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    chunk = lab.old_chunks()[0]

    unknown, known = lab.hook().tier(["public.nothing_20200101_000000", chunk])

    assert (unknown.outcome, unknown.retryable) == ("failed", False)
    assert "public.nothing_20200101_000000" in str(unknown.detail)
    assert known.outcome == "tiered"


def test_tier_tells_a_chunk_that_is_already_dropped(lab: Lab) -> None:
    lab.synced(days=8)
    lab.conn.execute("SELECT lakets.execute_retention('metrics', p_force => true)")

    (result,) = lab.hook().tier([lab.old_chunks()[0]])

    assert (result.outcome, result.retryable) == ("failed", False)
    assert "already dropped" in str(result.detail)


def test_tier_has_nothing_to_do_where_retention_was_faster(lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    hook = lab.hook()
    listed = [candidate.chunk_name for candidate in hook.tier_candidates()]
    dropped = hook.retain("metrics").dropped

    results = hook.tier(listed)

    assert dropped
    assert set(dropped) <= set(listed)
    assert {result.outcome for result in results} == {"tiered"}


def test_retain_drops_what_is_tiered_and_says_what(lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    hook = lab.hook()
    hook.tier(candidate.chunk_name for candidate in hook.tier_candidates())
    lab.flush()

    result = hook.retain("metrics")

    assert result.outcome == "dropped"
    assert result.dropped == lab.values(
        "SELECT chunk_name FROM lakets._chunk_metadata WHERE status = 'dropped' ORDER BY range_start"
    )
    assert len(result.dropped) >= 3
    assert result.deferred == []


def test_retain_defers_what_is_not_durable_and_says_why(lab: Lab) -> None:
    lab.synced(days=8)

    result = lab.hook().retain("public.metrics")

    assert (result.outcome, result.dropped) == ("deferred", [])
    assert len(result.deferred) >= 3
    assert "not" in result.deferred[0].reason
    assert lab.value("SELECT count(*) FROM metrics") == 8


def test_retain_drops_all_that_is_due_by_force(lab: Lab) -> None:
    lab.synced(days=8)

    result = lab.hook().retain("metrics", force=True)

    assert len(result.dropped) >= 3
    assert result.deferred == []


def test_force_ends_at_the_first_chunk_that_is_not_approved(lab: Lab) -> None:
    """LakeTS 0.1 cannot drop only some of them, so it drops none."""
    lab.synced(days=8)
    hook = lab.hook()
    first, second, third, *others = [stays.chunk for stays in hook.retain("metrics").deferred]

    assert hook.retain("metrics", force=True, approved=f"{first} {second}").dropped == []  # is one name
    result = hook.retain("metrics", force=True, approved=[first, second, *others])

    some = lab.engine != "0.1"
    assert result.dropped == ([first, second] if some else [])
    assert result.outcome == ("dropped" if some else "deferred")
    reasons = {stays.chunk: stays.reason for stays in result.deferred}
    assert list(reasons) == [third, *others] if some else [first, second, third, *others]
    assert [chunk for chunk, why in reasons.items() if "no force is approved" in why] == [third]
    result = hook.retain("metrics", force=True, approved=lab.old_chunks())
    assert (result.outcome, result.deferred) == ("dropped", [])


def test_what_is_durable_is_dropped_whatever_force_is_approved_for(lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    hook = lab.hook()
    hook.tier(candidate.chunk_name for candidate in hook.tier_candidates())
    lab.flush()

    result = hook.retain("metrics", force=True, approved=[])

    assert (result.outcome, result.deferred) == ("dropped", [])
    assert len(result.dropped) >= 3


def test_retain_has_nothing_to_do_with_young_chunks(lab: Lab) -> None:
    lab.synced(days=2)

    result = lab.hook().retain("metrics")

    assert result.outcome == "unchanged"


def test_retain_reports_contention_as_contention(lab: Lab, connect_to_lab: psycopg.Connection) -> None:
    lab.synced(days=8)
    lab.flush()
    hook = lab.hook(tries=1)
    hook.tier(candidate.chunk_name for candidate in hook.tier_candidates())
    lab.flush()
    connect_to_lab.execute("BEGIN; SELECT count(*) FROM metrics")  # a reader that does not finish
    if lab.engine == "0.1":  # it has no timeout of its own
        lab.conn.execute("ALTER FUNCTION lakets.execute_retention SET lock_timeout = '300ms'")

    result = hook.retain("metrics")

    # 0.1.3 takes a lock that it does not get for a warning.
    outcome = "deferred" if lab.engine == "0.1" else "contended"
    assert (result.outcome, result.dropped, result.retryable) == (outcome, [], True)
    assert len(result.deferred) >= 3  # due, and still in Lakebase


def test_retain_drops_a_few_at_a_time_where_the_engine_can(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_lakets.hooks.lakets.DROP_BATCH", 2)
    lab.table("metrics", days=10)
    lab.conn.execute("SELECT lakets.add_retention_policy('metrics', '4 days')")

    result = lab.hook().retain("metrics")

    transactions = lab.value(
        "SELECT count(DISTINCT xmin::text) FROM lakets._chunk_metadata WHERE status = 'dropped'"
    )
    assert len(result.dropped) >= 5
    if lab.engine == "ours":
        assert transactions == -(-len(result.dropped) // 2)


def test_retain_tells_what_was_dropped_before_it_was_contended(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.table("metrics", days=10)
    lab.conn.execute("SELECT lakets.add_retention_policy('metrics', '4 days')")
    hook = lab.hook(tries=1)
    real = hook.execute_retention

    def drops_and_is_contended(*arguments: Any, **named: Any) -> int:
        real(*arguments, **named)
        raise LakeTSContendedError("busy")

    monkeypatch.setattr(hook, "execute_retention", drops_and_is_contended)

    result = hook.retain("metrics")

    assert result.outcome == "contended"
    assert len(result.dropped) >= 5


def test_retain_trims_nothing_unless_asked(lab: Lab) -> None:
    lab.synced(days=8)
    before = lab.value("SELECT count(*) FROM lakets_cdf._shadow_metrics")

    result = lab.hook().retain("metrics", force=True)

    assert (bool(result.dropped), result.trimmed) == (True, 0)
    assert lab.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == before


@pytest.mark.parametrize("policy", ["retention", "tiered_retention"])
def test_trimming_needs_an_engine_that_can(lab: Lab, policy: str) -> None:
    lab.table("metrics")
    ages = ["1 day", "2 days"][: 2 if policy == "tiered_retention" else 1]
    add = partial(getattr(lab.hook(), f"add_{policy}_policy"), "metrics", *ages, trim_shadow=True)

    if lab.engine == "0.1":
        with pytest.raises(LakeTSArgumentError, match="Trimming the shadow needs"):
            add()
    else:
        add()
        assert lab.values("SELECT config ->> 'trim_shadow' FROM lakets._policy_registry") == ["true"]


def test_version_is_none_without_lakets(lab: Lab) -> None:
    lab.conn.execute("DROP SCHEMA lakets CASCADE")

    assert lab.hook().version() is None


def test_status_gathers_tables_chunks_and_rollups(lab: Lab) -> None:
    lab.table("metrics", days=3)
    lab.rollup("hourly")
    lab.rollup("daily", reads="hourly")

    status = lab.hook().status()

    assert status.version == lab.value(
        "SELECT version FROM lakets._version ORDER BY installed_at DESC LIMIT 1"
    )
    assert [table.name for table in status.tables] == ["public.metrics"]
    assert status.health[0].total == lab.value("SELECT count(*) FROM lakets._chunk_metadata")
    assert status.feeds[0].cdf_status == "NONE"
    assert {rollup.name: rollup.depends_on for rollup in status.rollups} == {
        "hourly": [],
        "daily": ["hourly"],
    }
