"""Each right in docs/permissions.md is needed: without it, one clear error, and no change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from airflow_provider_lakets.engine import install_script
from tests.sandbox import Sandbox
from tests.stage import FEED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

JOBS = {
    "partition": "SELECT lakets._ensure_partitions(id, 1, 9) FROM lakets._chronotable_registry",
    "candidates": "SELECT lakets._get_chunks_to_tier('metrics')",
    "tier": "SELECT lakets.tier_chunk('public.metrics_20240102_000000')",
    "retain": "SELECT lakets.execute_retention('metrics')",
    # In one transaction nothing comes to be durable, so that it takes force to drop.
    "drop": "SELECT lakets.execute_retention('metrics', p_force => true)",
    "refresh": "SELECT lakets.refresh_rollup('daily', true)",
    "sync": "SELECT lakets.enable_sync('other')",
    "unsync": "SELECT lakets.disable_sync('metrics')",
    "remove a table": "SELECT lakets.drop_chronotable('other')",
    "ask to trim": "SELECT lakets.add_retention_policy('other', '2 days', p_trim_shadow => true)",
}

# The registries of 0.1.x number their rows by sequences, which take a right of their own; ours do
# not.
JOBS_AFTER_01 = {
    "_chunk_metadata": JOBS["partition"],
    "_policy_registry": "SELECT lakets.add_retention_policy('other', '2 days')",
    "_rollup_invalidation_log": "SELECT lakets.invalidate_rollup_range('daily', '2024-01-02', '2024-01-03')",
    "_rollup_registry": "SELECT lakets.create_rollup('again', query_text, bucket_interval)"
    " FROM lakets._rollup_registry",
    "_chronotable_registry": "SELECT lakets.create_chronotable('new', 'ts')",
}
EVERY_JOB = {**JOBS, **JOBS_AFTER_01}


class Loss(NamedTuple):
    """The revoked right, the job that then fails, and what its error names."""

    statement: str
    job: str
    named: str


LOSSES = {
    "schema": Loss("REVOKE USAGE ON SCHEMA lakets FROM PUBLIC, owner_", "retain", "schema lakets"),
    "where the tables are": Loss(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC, owner_", "partition", "schema public"
    ),
    "where the shadows are": Loss(
        "REVOKE CREATE ON SCHEMA lakets_cdf FROM owner_", "sync", "schema lakets_cdf"
    ),
    "where trackers are": Loss("REVOKE CREATE ON SCHEMA lakets FROM owner_", "sync", "schema lakets"),
    "tables, to read": Loss(
        "REVOKE ALL ON lakets._chronotable_registry FROM owner_", "retain", "_chronotable_registry"
    ),
    "chunks, to register": Loss(
        "REVOKE INSERT ON lakets._chunk_metadata FROM owner_", "partition", "_chunk_metadata"
    ),
    "chunks, to flag": Loss("REVOKE UPDATE ON lakets._chunk_metadata FROM owner_", "tier", "_chunk_metadata"),
    "chunks, to drop": Loss("REVOKE UPDATE ON lakets._chunk_metadata FROM owner_", "drop", "_chunk_metadata"),
    "policies": Loss(
        "REVOKE UPDATE ON lakets._policy_registry FROM owner_", "candidates", "_policy_registry"
    ),
    "RollUps": Loss("REVOKE UPDATE ON lakets._rollup_registry FROM owner_", "refresh", "_rollup_registry"),
    "marks": Loss(
        "REVOKE ALL ON lakets._rollup_invalidation_log FROM owner_", "refresh", "_rollup_invalidation_log"
    ),
    "log": Loss("REVOKE SELECT ON lakets._change_log FROM owner_", "refresh", "_change_log"),
    "log, to write": Loss("REVOKE INSERT ON lakets._change_log FROM PUBLIC, owner_", "sync", "_change_log"),
    "log, to prune": Loss("REVOKE DELETE ON lakets._change_log FROM owner_", "remove a table", "_change_log"),
    "proof": Loss("REVOKE ALL ON lakets._feed_proof FROM owner_", "retain", "_feed_proof"),
    "proof, to begin": Loss(
        "DELETE FROM lakets._feed_proof; REVOKE INSERT ON lakets._feed_proof FROM owner_",
        "tier",
        "_feed_proof",
    ),
    "proof, to forget": Loss("REVOKE DELETE ON lakets._feed_proof FROM owner_", "unsync", "_feed_proof"),
    "trims": Loss("REVOKE SELECT ON lakets_cdf._trim_log FROM owner_", "ask to trim", "_trim_log"),
    "trims, to write": Loss("REVOKE INSERT ON lakets_cdf._trim_log FROM owner_", "ask to trim", "_trim_log"),
    "membership, for chunks": Loss("REVOKE owner_ FROM jobs_", "partition", "_default"),
    "membership, for drops": Loss("REVOKE owner_ FROM jobs_", "retain", "metrics"),
    "membership, for RollUps": Loss("REVOKE owner_ FROM jobs_", "refresh", "metrics|_rollup_daily"),
    "functions": Loss(
        "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA lakets FROM PUBLIC", "retain", "function execute_retention"
    ),
}

RIGHTS = """
CREATE ROLE owner_; CREATE ROLE jobs_; GRANT owner_ TO jobs_;
GRANT USAGE, CREATE ON SCHEMA public, lakets, lakets_cdf TO owner_;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO owner_;
GRANT SELECT, INSERT ON lakets_cdf._trim_log TO owner_;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA lakets TO owner_;
"""
MEMBER_BY_ITSELF = """
GRANT USAGE, CREATE ON SCHEMA public, lakets, lakets_cdf TO jobs_;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO jobs_;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA lakets TO jobs_;
"""


@pytest.fixture
def lived_in(db: Sandbox) -> Sandbox:
    """Return a database with work for every job."""
    live_in(db)
    return db


@pytest.fixture(scope="module")
def session_after_01(postgres: EmbeddedPostgres, template_01: str) -> Iterator[psycopg.Connection]:
    """Yield a session on a database whose registries are those of 0.1.x, after our install."""
    name = "lakets_rights_after_01"
    with psycopg.connect(postgres.ensure_database(name, template=template_01), autocommit=True) as session:
        session.execute("SET client_min_messages = error")
        session.execute(install_script().encode())
        yield session
    postgres.drop_database(name)


@pytest.fixture
def after_01(session_after_01: psycopg.Connection) -> Iterator[Sandbox]:
    """Yield it with work for every job, which it forgets."""
    with session_after_01.transaction(force_rollback=True):
        db = Sandbox(session_after_01)
        live_in(db)
        db.run("SET LOCAL ROLE owner_")
        db.run("CREATE TABLE new (ts timestamptz)")
        db.run("RESET ROLE")
        yield db


def live_in(db: Sandbox) -> None:
    """Make a table with work for every job, owned by a role that the jobs' role is a member of."""
    db.run(RIGHTS)
    db.run("SET LOCAL ROLE owner_")
    for name in ("metrics", "other"):
        db.run(f"CREATE TABLE {name} (ts timestamptz, value integer)")
        db.run(
            f"INSERT INTO {name} SELECT '2024-01-01'::timestamptz + n * interval '1 day', n"
            " FROM generate_series(0, 3) AS n"
        )
        db.run("SELECT lakets.create_chronotable(%s, 'ts', '1 day')", name)
    db.run(
        "SELECT lakets.create_rollup('daily', 'SELECT lakets.time_bucket(''1 day'', ts) AS bucket,"
        " sum(value) AS total FROM public.metrics GROUP BY 1', '1 day')"
    )
    db.run(
        "SELECT lakets.enable_sync('metrics'),"
        " lakets.add_tiered_retention_policy('metrics', '1 day', '2 days')"
    )
    db.run("RESET ROLE")
    db.run(FEED)
    db.run(
        "INSERT INTO wal2delta.tables"
        " SELECT 'lakets_cdf._shadow_metrics'::regclass, 'STREAMING', 'FFFFFFFF/0'"
    )


@pytest.mark.parametrize("job", JOBS)
def test_a_member_of_the_owner_does_the_job(lived_in: Sandbox, job: str) -> None:
    lived_in.run("SET LOCAL ROLE jobs_")

    assert lived_in.run(JOBS[job]) is not None


@pytest.mark.parametrize("lost", LOSSES)
def test_without_a_right_the_job_names_what_it_may_not_touch(lived_in: Sandbox, lost: str) -> None:
    statement, job, named = LOSSES[lost]
    if "membership" in lost:
        lived_in.run(MEMBER_BY_ITSELF)
    before = lived_in.run("SELECT chunk_name, status FROM lakets._chunk_metadata ORDER BY 1")
    lived_in.run(statement)
    lived_in.run("SET LOCAL ROLE jobs_")

    with lived_in.refused("42501", named):
        lived_in.run(JOBS[job])

    lived_in.run("RESET ROLE")
    assert lived_in.run("SELECT chunk_name, status FROM lakets._chunk_metadata ORDER BY 1") == before


@pytest.mark.parametrize("job", EVERY_JOB)
def test_after_01_a_member_of_the_owner_does_the_job_too(after_01: Sandbox, job: str) -> None:
    after_01.run("SET LOCAL ROLE jobs_")

    assert after_01.run(EVERY_JOB[job]) is not None


@pytest.mark.parametrize("registry", JOBS_AFTER_01)
def test_after_01_the_job_names_the_sequence_that_it_may_not_use(after_01: Sandbox, registry: str) -> None:
    after_01.run(f"REVOKE USAGE ON SEQUENCE lakets.{registry}_id_seq FROM owner_")
    after_01.run("SET LOCAL ROLE jobs_")

    with after_01.refused("42501", f"sequence {registry}_id_seq"):
        after_01.run(JOBS_AFTER_01[registry])
