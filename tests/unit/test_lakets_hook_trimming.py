"""LakeTSHook with policies that trim the rows of dropped chunks from the shadow."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.exceptions import LakeTSContendedError

if TYPE_CHECKING:
    from tests.lab import Lab


@pytest.fixture(scope="session")
def engine() -> str:
    """LakeTS 0.1.x cannot trim."""
    return "ours"


@pytest.fixture
def trimming(lab: Lab) -> Lab:
    """Create a synced table with trimming, with all changes flushed and proved."""
    lab.synced(days=8)
    lab.flush()
    hook = lab.hook()
    lab.conn.execute("SELECT lakets.remove_retention_policy('metrics')")
    hook.add_tiered_retention_policy("metrics", "2 days", "4 days", trim_shadow=True)
    lab.conn.execute(
        "INSERT INTO wal2delta.tables VALUES ('lakets_cdf._trim_log'::regclass, 'STREAMING', '0/0')"
    )
    lab.flush()
    hook.tier(candidate.chunk_name for candidate in hook.tier_candidates())
    lab.flush()
    return lab


def test_retain_trims_the_shadow_where_the_policy_says_so(trimming: Lab) -> None:
    before = trimming.value("SELECT count(*) FROM metrics")

    result = trimming.hook().retain("metrics")

    assert result.trimmed == before - trimming.value("SELECT count(*) FROM metrics") > 0
    assert trimming.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == before - result.trimmed
    assert result.as_dict()["trimmed"] == result.trimmed


def test_retain_tells_what_it_trimmed_of_chunks_dropped_before(trimming: Lab) -> None:
    trimming.conn.execute("SELECT lakets.execute_retention('metrics')")

    result = trimming.hook().retain("metrics")

    assert (result.outcome, result.dropped, result.trimmed > 0) == ("trimmed", [], True)


def test_retain_tells_what_it_trimmed_before_it_was_contended(
    trimming: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = trimming.hook(tries=1)
    real = hook.trim_shadow
    rows = iter([real, None])

    def trims_and_is_contended(*arguments: Any, **named: Any) -> int:
        trim = next(rows)
        if trim is None:
            raise LakeTSContendedError("busy")
        return trim(*arguments, **named)

    monkeypatch.setattr(hook, "trim_shadow", trims_and_is_contended)

    result = hook.retain("metrics")

    assert (result.outcome, bool(result.dropped), result.trimmed > 0) == ("contended", True, True)


def test_the_view_of_the_history_is_made_where_it_is_wanted(trimming: Lab) -> None:
    text = trimming.hook().history_view_sql(
        "metrics",
        catalog="main",
        uc_schema="ops",
        view_name="all",
        since=datetime(2026, 1, 1, tzinfo=timezone.utc),
    )

    assert text.startswith("CREATE OR REPLACE VIEW `main`.`ops`.`all`")
    assert "TIMESTAMP '2026-01-01 00:00:00.000000+00:00'" in text
