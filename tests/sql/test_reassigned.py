"""The owner of a table loses the rights on LakeTS, or the table goes to a role without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage import Raises, Stage

PARTITIONS = "SELECT lakets._ensure_partitions(1)"
LOSSES = {
    "reassigned": "REASSIGN OWNED BY {owner} TO {heir}",
    "there and back": "REASSIGN OWNED BY {owner} TO {heir}; DROP OWNED BY {owner};"
    " REASSIGN OWNED BY {heir} TO {owner}",
    "revoked": "REVOKE USAGE ON SCHEMA lakets FROM {owner}",
    "some revoked": "REVOKE INSERT (min_time) ON lakets._change_log FROM {owner}",
}


@pytest.fixture
def roles(stage: Stage) -> Iterator[dict[str, str]]:
    """Yield the names of two owners of tables, and of a jobs role that is a member of both."""
    roles = {name: f"{name}_{stage.conn.info.dbname}" for name in ("owner", "heir", "jobs")}
    owner, heir, jobs = roles.values()
    stage.run(f"CREATE ROLE {owner}; CREATE ROLE {heir}; CREATE ROLE {jobs}; GRANT {owner}, {heir} TO {jobs}")
    stage.run(f"GRANT CREATE, USAGE ON SCHEMA public, lakets TO {owner}, {heir}")
    yield roles
    stage.run(f"RESET ROLE; DROP OWNED BY {owner}, {heir}, {jobs} CASCADE")
    stage.run(f"DROP ROLE {jobs}; DROP ROLE {owner}; DROP ROLE {heir}")


def write(stage: Stage, number: int = 77) -> None:
    stage.run("INSERT INTO metrics VALUES (%s, %s, 77)", number, stage.at(1, 13))


@pytest.mark.parametrize("synced", [True, False], ids=["synced", "not synced"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_partition_job_grants_what_is_missing(
    stage: Stage, roles: dict[str, str], raises: Raises, loss: str, synced: bool
) -> None:
    stage.table()
    stage.run(f"ALTER TABLE metrics OWNER TO {roles['owner']}")
    stage.run("SELECT lakets.enable_sync('metrics')" if synced else PARTITIONS)
    write(stage, 76)
    stage.run("REVOKE CREATE, USAGE ON SCHEMA lakets FROM {owner}, {heir}; ".format(**roles))
    stage.run(loss.format(**roles))
    with raises("42501"):
        write(stage)

    stage.value(PARTITIONS)

    write(stage)
    if synced:
        assert stage.run("TABLE metrics EXCEPT ALL TABLE lakets_cdf._shadow_metrics") == []


def test_a_jobs_role_that_cannot_grant_names_every_grant(
    stage: Stage, roles: dict[str, str], raises: Raises
) -> None:
    stage.table()
    stage.run(f"ALTER TABLE metrics OWNER TO {roles['owner']}")
    stage.run(PARTITIONS)
    stage.run(
        "GRANT USAGE ON SCHEMA lakets TO {jobs}; GRANT ALL ON ALL TABLES IN SCHEMA lakets TO {jobs}".format(
            **roles
        )
    )
    stage.run(
        "REASSIGN OWNED BY {owner} TO {heir}; REVOKE USAGE, CREATE ON SCHEMA lakets FROM {heir}".format(
            **roles
        )
    )
    stage.run("SET ROLE {jobs}".format(**roles))

    with raises("42501", match="its owner .* lacks USAGE ON SCHEMA lakets, ") as caught:
        stage.value(PARTITIONS)

    stage.run("RESET ROLE")
    hint = str(caught.value.diag.message_hint)
    stage.run(hint.removeprefix("Let the owner of LakeTS run: "))
    write(stage)


def test_a_refresh_grants_what_the_mirror_of_its_rollup_needs(stage: Stage, roles: dict[str, str]) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.run("SELECT lakets.enable_sync('hourly')")
    stage.run(
        "GRANT SELECT ON metrics TO {heir}; GRANT SELECT ON lakets._rollup_registry TO {heir}".format(**roles)
    )
    stage.run("ALTER TABLE public._rollup_hourly OWNER TO {owner}".format(**roles))
    stage.run("SELECT lakets.enable_sync('hourly')")
    stage.run("REVOKE USAGE ON SCHEMA lakets_cdf FROM {owner}".format(**roles))

    stage.run(
        "GRANT SELECT ON metrics TO {owner}; SELECT lakets.refresh_rollup('hourly', true)".format(**roles)
    )

    assert stage.value("SELECT has_schema_privilege(%s, 'lakets_cdf', 'USAGE')", roles["owner"])
