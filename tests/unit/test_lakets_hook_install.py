"""Installing LakeTS through the hook."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets import __version__, engine
from airflow_provider_lakets.exceptions import LakeTSError, LakeTSPrivilegeError
from airflow_provider_lakets.hooks.lakets import LakeTSHook
from airflow_provider_lakets.hooks.results import InstallResult
from tests.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def bare(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The database of lakebase_default, without LakeTS."""
    lab = Lab(empty_database, "none")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection())
    yield lab
    lab.conn.close()


def test_says_that_there_was_none_before(bare: Lab) -> None:
    assert LakeTSHook().install() == InstallResult(before=None, after=__version__)


def test_is_safe_to_repeat(bare: Lab) -> None:
    hook = LakeTSHook()
    hook.install()
    bare.table("metrics", days=2)

    assert hook.install() == InstallResult(before=__version__, after=__version__)
    assert bare.value("SELECT count(*) FROM metrics") == 2


def test_installers_at_the_same_time_wait_for_each_other(bare: Lab) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: LakeTSHook().install(), range(4)))

    assert {result.after for result in results} == {__version__}
    assert bare.value("SELECT count(*) FROM lakets._version") == 1


def test_an_install_that_fails_leaves_nothing_behind(bare: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    script = engine.install_script().replace("COMMIT;", "SELECT 1 / 0;\nCOMMIT;")
    monkeypatch.setattr(engine, "install_script", lambda: script)
    hook = LakeTSHook()

    with hook.session(), pytest.raises(LakeTSError, match=r"Installing LakeTS.*division by zero"):
        hook.install()

    assert bare.value("SELECT to_regnamespace('lakets')") is None


def test_a_session_is_of_use_after_an_install_that_failed(bare: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "install_script", lambda: "BEGIN; SELECT 1 / 0; COMMIT;")

    with LakeTSHook().session() as hook:
        with pytest.raises(LakeTSError):
            hook.install()

        assert hook.version() is None


def test_a_role_that_may_not_create_schemas_is_told(bare: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    role = f"guest_{bare.value('SELECT oid FROM pg_database WHERE datname = current_database()')}"
    bare.conn.execute(f"CREATE ROLE {role} LOGIN")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", bare.connection(login=role))

    with pytest.raises(LakeTSPrivilegeError, match=f"{role}.*permission denied for database"):
        LakeTSHook().install()

    bare.conn.execute(f"DROP ROLE {role}")


def test_what_the_new_engine_can_do_is_used_at_once(bare: Lab) -> None:
    with LakeTSHook().session() as hook:
        assert not hook.supports("retention_report")
        hook.install()

        assert hook.supports("execute_retention", "p_max_chunks")


@pytest.fixture
def as_jobs(bare: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """LakeTS with another owner than the role of the connection, which may read it."""
    LakeTSHook().install()
    bare.conn.execute("CREATE ROLE install_jobs LOGIN")
    bare.conn.execute("GRANT USAGE ON SCHEMA lakets TO install_jobs")
    bare.conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA lakets TO install_jobs")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", bare.connection(login="install_jobs"))
    yield bare
    bare.conn.execute("DROP OWNED BY install_jobs")
    bare.conn.execute("DROP ROLE install_jobs")


def test_the_same_version_of_another_owner_is_left_as_it_is(as_jobs: Lab) -> None:
    assert LakeTSHook().install() == InstallResult(before=__version__, after=__version__)


def test_another_version_of_another_owner_names_the_owner(as_jobs: Lab) -> None:
    as_jobs.conn.execute("UPDATE lakets._version SET version = '0.1.3'")

    with pytest.raises(LakeTSPrivilegeError, match=r"version 0\.1\.3\) belongs to role .*Run the install as"):
        LakeTSHook().install()
