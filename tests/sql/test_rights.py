"""Required rights: a writer needs only its table, an owner the schemas, and nobody gets more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from airflow_provider_lakets.engine import install_script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sandbox import Sandbox

OWNER = """
CREATE ROLE keeper; CREATE ROLE writer;
GRANT USAGE, CREATE ON SCHEMA public, lakets, lakets_cdf TO keeper;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO keeper;
"""

WRITES = {
    "INSERT": "INSERT INTO metrics VALUES (2, '2024-01-01', 0)",
    "UPDATE": "UPDATE metrics SET v = 1",
    "DELETE": "DELETE FROM metrics",
    "TRUNCATE": "TRUNCATE metrics",
}


def owned(db: Sandbox, key: str) -> None:
    """Make a table that belongs to another role than the one that will make it a ChronoTable."""
    db.run(OWNER)
    db.run(f"CREATE TABLE metrics (id int, ts timestamptz, v int{key}); ALTER TABLE metrics OWNER TO keeper")


def has(db: Sandbox, role: str, relation: str) -> set[str]:
    return set(
        db.column(
            "SELECT right_ FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) AS right_"
            " WHERE has_table_privilege(%s, %s, right_)",
            role,
            relation,
        )
    )


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("key", ["", ", PRIMARY KEY (id, ts)"], ids=["no key", "key"])
@pytest.mark.parametrize("right", WRITES)
def test_a_writer_needs_its_right_on_the_table_only(db: Sandbox, right: str, key: str, when: str) -> None:
    owned(db, key)
    db.run("SELECT lakets.create_chronotable('metrics', 'ts')")
    db.run("INSERT INTO metrics VALUES (1, '2024-01-01', 0)")
    if when == "before":
        db.run(f"GRANT {right} ON metrics TO writer")
    db.run("SELECT lakets.enable_sync('metrics')")
    if when == "after":
        db.run(f"GRANT {right} ON metrics TO writer")

    db.run(f"SET LOCAL ROLE writer; {WRITES[right]}; RESET ROLE")

    assert db.mirror_difference() == []
    assert has(db, "writer", "lakets_cdf._shadow_metrics") == set()


def test_a_right_on_columns_is_a_right_too_and_grows_no_larger(db: Sandbox) -> None:
    owned(db, ", PRIMARY KEY (id, ts)")
    db.run("GRANT UPDATE (v), SELECT (id) ON metrics TO writer")
    db.run("SELECT lakets.create_chronotable('metrics', 'ts'), lakets.enable_sync('metrics')")
    db.run("INSERT INTO metrics VALUES (1, '2024-01-01', 0)")

    db.run("SET LOCAL ROLE writer; UPDATE metrics SET v = 7 WHERE id = 1")
    for statement in ("TABLE", "DELETE FROM", "TRUNCATE"):
        with db.refused("42501"):
            db.run(f"{statement} lakets_cdf._shadow_metrics")
    db.run("RESET ROLE")

    assert db.column("SELECT v FROM lakets_cdf._shadow_metrics") == [7]


def test_what_older_versions_granted_on_a_shadow_is_taken_back(db: Sandbox) -> None:
    owned(db, "")
    db.run("SELECT lakets.create_chronotable('metrics', 'ts'), lakets.enable_sync('metrics')")
    db.run("CREATE ROLE reader; GRANT SELECT ON lakets_cdf._shadow_metrics TO reader")
    db.run("GRANT SELECT, INSERT, UPDATE, DELETE ON lakets_cdf._shadow_metrics TO writer, PUBLIC")

    db.run("SELECT lakets.enable_sync('metrics')")

    assert has(db, "writer", "lakets_cdf._shadow_metrics") == set()
    assert has(db, "reader", "lakets_cdf._shadow_metrics") == {"SELECT"}


@pytest.mark.parametrize("write", ["INSERT", "UPDATE", "DELETE"])
def test_writes_are_tracked_whatever_the_replication_role(db: Sandbox, write: str) -> None:
    db.chronotable("id int, ts timestamptz, v int, PRIMARY KEY (id, ts)", synced=True)
    db.run("INSERT INTO metrics VALUES (1, '2024-01-01', 0)")
    logged = db.value("SELECT count(*) FROM lakets._change_log")

    db.run(f"SET LOCAL session_replication_role = replica; {WRITES[write]}; RESET session_replication_role")

    assert db.mirror_difference() == []
    assert db.value("SELECT count(*) FROM lakets._change_log") == logged + 1


def test_an_owner_without_rights_gets_what_tracking_needs_and_no_more(db: Sandbox) -> None:
    db.run("CREATE ROLE keeper; CREATE ROLE writer; CREATE TABLE metrics (id int, ts timestamptz, v int)")
    db.run("GRANT CREATE ON SCHEMA public, lakets TO keeper; ALTER TABLE metrics OWNER TO keeper")
    db.run("GRANT INSERT ON metrics TO writer; SELECT lakets.create_chronotable('metrics', 'ts')")

    db.run("SET LOCAL ROLE writer; INSERT INTO metrics VALUES (1, '2024-01-01', 0); SET LOCAL ROLE keeper")
    with db.refused("42501"):
        db.run("INSERT INTO lakets._change_log (chronotable_id, lsn) VALUES (1, '0/0')")
    db.run("RESET ROLE")

    assert db.value("SELECT count(*) FROM lakets._change_log") == 1
    assert has(db, "keeper", "lakets._change_log") == set()


def test_an_owner_without_rights_is_named_where_they_cannot_be_granted(db: Sandbox) -> None:
    owned(db, "")
    db.run("CREATE ROLE jobs; GRANT keeper TO jobs; GRANT USAGE ON SCHEMA lakets TO jobs")
    db.run("REVOKE INSERT ON lakets._change_log FROM keeper; SET LOCAL ROLE jobs")

    with db.refused("42501", "its owner keeper lacks INSERT .* ON lakets._change_log"):
        db.run("SELECT lakets.create_chronotable('metrics', 'ts')")


def test_public_has_no_right_on_what_lakets_keeps(db: Sandbox) -> None:
    db.chronotable(synced=True)
    db.run(
        "SELECT lakets.create_rollup('daily', 'SELECT lakets.time_bucket(''1 day'', ts) AS bucket, count(*)"
        " FROM public.metrics GROUP BY 1', '1 day')"
    )

    granted = db.column(
        "SELECT pg_describe_object(class, oid, 0) FROM ("
        " SELECT 'pg_namespace'::regclass AS class, oid, nspacl AS acl FROM pg_namespace UNION ALL"
        " SELECT 'pg_class'::regclass, oid, relacl FROM pg_class WHERE relkind NOT IN ('i', 't') UNION ALL"
        " SELECT 'pg_class'::regclass, attrelid, attacl FROM pg_attribute UNION ALL"
        " SELECT 'pg_proc'::regclass, oid, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc"
        "  WHERE prosecdef) AS item, aclexplode(acl) AS granted"
        " WHERE grantee = 0 AND pg_describe_object(class, oid, 0) ~ 'lakets|_rollup_'"
    )

    assert granted == []


def test_a_writer_can_empty_a_table_that_has_lost_chunks(db: Sandbox) -> None:
    owned(db, "")
    db.run("GRANT TRUNCATE, SELECT ON metrics TO writer")
    db.run("INSERT INTO metrics VALUES (1, '2024-01-01', 0)")
    db.run("SELECT lakets.create_chronotable('metrics', 'ts', '1 day'), lakets.enable_sync('metrics')")
    db.run("SELECT lakets.drop_chunks('metrics', '1 year'); INSERT INTO metrics VALUES (2, '2024-01-01', 0)")

    db.run("SET LOCAL ROLE writer; TRUNCATE metrics; RESET ROLE")

    assert db.column("SELECT id FROM lakets_cdf._shadow_metrics") == [1]


def test_writers_go_on_where_functions_are_not_granted_by_default(db: Sandbox) -> None:
    owned(db, ", PRIMARY KEY (id, ts)")
    db.run("GRANT INSERT, UPDATE, DELETE, SELECT ON metrics TO writer")
    db.run("SELECT lakets.create_chronotable('metrics', 'ts'), lakets.enable_sync('metrics')")
    db.run("SELECT lakets.enable_lvc('metrics', '{id}', '{v}')")
    db.run(
        "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA lakets FROM PUBLIC; SELECT lakets.enable_sync('metrics')"
    )

    db.run("SET LOCAL ROLE writer; INSERT INTO metrics VALUES (1, '2024-01-01', 0), (2, '2024-01-01', 0)")
    db.run("UPDATE metrics SET v = 1; DELETE FROM metrics WHERE id = 2; RESET ROLE")

    assert db.mirror_difference() == []
    assert db.run("SELECT id, v FROM _lvc_metrics ORDER BY id") == [(1, 1), (2, 1)]


def test_everything_made_for_a_table_belongs_to_its_owner(db: Sandbox) -> None:
    owned(db, ", PRIMARY KEY (id, ts)")
    table_id = db.value("SELECT lakets.create_chronotable('metrics', 'ts')")
    db.run("SELECT lakets.enable_sync('metrics')")
    db.value("SELECT lakets._ensure_partitions(%s, 0, 9)", table_id)

    owners = db.column(
        "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname LIKE '%metrics%' UNION"
        " SELECT DISTINCT proowner::regrole::text FROM pg_proc WHERE proname LIKE '\\_track\\_%\\_%'"
    )

    assert owners == ["keeper"]


def test_chunks_are_reached_through_their_table_only(db: Sandbox) -> None:
    owned(db, "")
    db.run(
        "GRANT SELECT, INSERT ON metrics TO writer; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO writer"
    )
    table_id = db.value("SELECT lakets.create_chronotable('metrics', 'ts')")
    db.value("SELECT lakets._ensure_partitions(%s, 0, 9)", table_id)

    readable = db.column(
        "SELECT oid::regclass::text FROM pg_class WHERE relname LIKE 'metrics%' AND relkind IN ('r', 'p')"
        " AND has_table_privilege('writer', oid, 'SELECT')"
    )

    assert readable == ["metrics"]


@pytest.fixture
def roles(database: str) -> Iterator[dict[str, str]]:
    """Yield conninfos of an owner, of the jobs' role (its member) and of an installer."""
    number = conninfo_to_dict(database)["dbname"]
    names = {role: f"{role}_{number}" for role in ("keeper", "jobs", "installer")}
    with psycopg.connect(database, autocommit=True) as admin:
        for role in names.values():
            admin.execute(f"CREATE ROLE {role} LOGIN".encode())
        admin.execute(
            f"GRANT {names['keeper']} TO {names['jobs']};"
            f" GRANT USAGE, CREATE ON SCHEMA public, lakets, lakets_cdf TO {names['keeper']};"
            f" GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO"
            f" {names['keeper']}".encode()
        )
        yield {role: make_conninfo(database, user=name) for role, name in names.items()}
        for role in names.values():
            admin.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def test_a_member_of_the_owner_does_it_all_with_the_documented_rights(
    roles: dict[str, str], conn: psycopg.Connection
) -> None:
    with psycopg.connect(roles["keeper"], autocommit=True) as keeper:
        keeper.execute("CREATE TABLE metrics (id bigserial, ts timestamptz, PRIMARY KEY (id, ts))")
        keeper.execute(
            "INSERT INTO metrics (ts) SELECT now() - n * interval '1 day' FROM generate_series(1, 30) n"
        )
    with psycopg.connect(roles["jobs"], autocommit=True) as jobs:
        jobs.execute("SELECT lakets.create_chronotable('metrics', 'ts', '1 day')")
        jobs.execute("SELECT lakets.enable_sync('metrics')")
        jobs.execute("INSERT INTO metrics (ts) VALUES ('2001-01-01')")
        jobs.execute("SELECT lakets._ensure_partitions(id, 1, 10) FROM lakets._chronotable_registry")
        jobs.execute("SELECT lakets.enable_sync('metrics')")
    with psycopg.connect(roles["keeper"], autocommit=True) as keeper:
        # The owner can still do as it likes with all of it.
        keeper.execute("ALTER TABLE metrics ADD COLUMN more int; SELECT lakets.enable_sync('metrics')")
        keeper.execute("UPDATE metrics SET more = 1")
        keeper.execute("SELECT lakets.disable_sync('metrics'), lakets.enable_sync('metrics')")

    count = conn.execute("SELECT count(*) FROM lakets_cdf._shadow_metrics WHERE more = 1").fetchone()
    assert count == (31,)


@pytest.mark.parametrize("hidden", [["system"], ["checkpoint"], ["system", "checkpoint"]], ids="-".join)
def test_the_jobs_run_where_the_service_hides_the_cluster(
    roles: dict[str, str], conn: psycopg.Connection, hidden: list[str]
) -> None:
    for what in hidden:
        conn.execute(f"REVOKE EXECUTE ON FUNCTION pg_control_{what}() FROM PUBLIC")
    conn.execute(
        "CREATE SCHEMA wal2delta CREATE TABLE tables"
        " (table_oid oid, status text, committed_lsn pg_lsn, last_write_time timestamptz);"
        " GRANT USAGE ON SCHEMA wal2delta TO PUBLIC; GRANT SELECT ON wal2delta.tables TO PUBLIC"
    )
    with psycopg.connect(roles["keeper"], autocommit=True) as keeper:
        keeper.execute("CREATE TABLE metrics (ts timestamptz); INSERT INTO metrics VALUES ('2024-01-01')")
    with psycopg.connect(roles["jobs"], autocommit=True) as jobs:
        jobs.execute("SELECT lakets.create_chronotable('metrics', 'ts', '1 day')")
        jobs.execute("SELECT lakets.enable_sync('metrics')")
        jobs.execute("SELECT lakets.add_tiered_retention_policy('metrics', '1 day', '2 days')")
        conn.execute(
            "INSERT INTO wal2delta.tables VALUES"
            " ('lakets_cdf._shadow_metrics'::regclass, 'STREAMING', 'FFFFFFFF/0', now())"
        )
        tiered = jobs.execute(
            "SELECT lakets.tier_chunk(due.chunk_name) FROM lakets._get_chunks_to_tier('metrics') AS due"
        ).fetchall()
        dropped = jobs.execute("SELECT lakets.execute_retention('metrics')").fetchall()

    assert (tiered, dropped) == ([(True,)], [(1,)])


def test_a_stranger_is_refused(roles: dict[str, str]) -> None:
    with psycopg.connect(roles["keeper"], autocommit=True) as keeper:
        keeper.execute("CREATE TABLE metrics (ts timestamptz)")
    with (
        psycopg.connect(roles["installer"], autocommit=True) as stranger,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        stranger.execute("SELECT lakets.create_chronotable('metrics', 'ts')")


@pytest.fixture
def owners(empty_database: str) -> Iterator[dict[str, str]]:
    """Yield conninfos of an owner and of an installer (its member); no LakeTS there."""
    names = {"keeper": "keeper_again", "installer": "installer_again"}
    with psycopg.connect(empty_database, autocommit=True) as admin:
        database = admin.info.dbname
        admin.execute("CREATE ROLE keeper_again LOGIN; CREATE ROLE installer_again LOGIN")
        admin.execute(
            "GRANT keeper_again TO installer_again; GRANT CREATE ON SCHEMA public TO keeper_again;"
            f' GRANT CREATE ON DATABASE "{database}" TO installer_again'.encode()
        )
        yield {role: make_conninfo(empty_database, user=name) for role, name in names.items()}
        admin.execute("DROP OWNED BY keeper_again, installer_again CASCADE")
        admin.execute("DROP ROLE keeper_again; DROP ROLE installer_again")


def test_a_member_of_the_owners_can_install_again(owners: dict[str, str], empty_database: str) -> None:
    with psycopg.connect(owners["installer"], autocommit=True) as installer:
        installer.execute(install_script().encode())
        installer.execute("GRANT USAGE, CREATE ON SCHEMA lakets, lakets_cdf TO keeper_again")
        installer.execute(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO keeper_again"
        )
    with psycopg.connect(owners["keeper"], autocommit=True) as keeper:
        keeper.execute("CREATE TABLE metrics (ts timestamptz)")
        keeper.execute("SELECT lakets.create_chronotable('metrics', 'ts'), lakets.enable_sync('metrics')")

    with psycopg.connect(owners["installer"], autocommit=True) as installer:
        installer.execute(install_script().encode())

    with psycopg.connect(owners["keeper"], autocommit=True) as keeper:
        keeper.execute("INSERT INTO metrics VALUES (now())")
        assert keeper.execute("SELECT count(*) FROM lakets_cdf._shadow_metrics").fetchone() == (1,)
