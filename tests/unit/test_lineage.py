"""What OpenLineage records about a refresh, through its own extractors."""

from __future__ import annotations

import subprocess
import sys
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.utils.state import TaskInstanceState
from psycopg.conninfo import conninfo_to_dict

from airflow_provider_lakets.assets import convert_asset_to_openlineage, rollup_asset, tiered_asset
from airflow_provider_lakets.compat import AirflowFailException
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.control_plane import ControlPlane
    from tests.lab import Lab


@pytest.fixture
def rolled(lab: Lab) -> Lab:
    """Two days of a table, in an hourly and a daily RollUp; all refreshed, and one new row."""
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    lab.rollup("daily", reads="hourly")
    lab.hook().refresh()
    lab.conn.execute("INSERT INTO metrics VALUES (now(), 'new', 1)")
    return lab


def refresh(**arguments: Any) -> LakeTSRollupRefreshOperator:
    """Run the operator outside of a DAG."""
    operator = LakeTSRollupRefreshOperator(task_id="refresh", **arguments)
    context: Any = {
        "ti": SimpleNamespace(try_number=1, map_index=-1, xcom_push=lambda **_: None),
        "dag_run": SimpleNamespace(start_date=None),
        "outlet_events": OutletEventAccessors(),
    }
    try:
        operator.execute(context)
    except AirflowFailException:
        assert not arguments
    return operator


def extracted(
    operator: Any, state: TaskInstanceState = TaskInstanceState.SUCCESS
) -> OperatorLineage[Any, Any]:
    """Call OpenLineage's own extractor manager, as its listener does at the end of a task."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports cause warnings
        from airflow.providers.openlineage.extractors.manager import ExtractorManager
    run: Any = SimpleNamespace(run_id="manual")
    manager: Any = ExtractorManager()  # type: ignore[no-untyped-call]
    found: OperatorLineage[Any, Any] = manager.extract_metadata(
        run, operator, task_instance_state=state, task_instance=SimpleNamespace()
    )
    return found


def server(lab: Lab) -> str:
    return f"postgres://{conninfo_to_dict(lab.conninfo)['host']}:5432"


def test_a_refresh_reads_sources_and_writes_rollups(rolled: Lab) -> None:
    lineage = extracted(refresh())

    database = rolled.conn.info.dbname
    tables = [f"{database}.public.{name}" for name in ("_rollup_hourly", "metrics")]
    assert [one.name for one in lineage.inputs] == tables
    assert sorted(one.name for one in lineage.outputs) == [
        f"{database}.public._rollup_daily",
        f"{database}.public._rollup_hourly",
    ]
    assert {one.namespace for one in (*lineage.inputs, *lineage.outputs)} == {server(rolled)}


@pytest.mark.parametrize("engine", ["ours"])
def test_each_output_has_the_number_of_rows_written(rolled: Lab) -> None:
    rolled.hook().refresh()
    rolled.conn.execute("INSERT INTO metrics VALUES ('2024-05-05 12:00+00', 'new', 1)")

    lineage: Any = extracted(refresh())

    rows = {
        one.name.rpartition("_")[2]: one.outputFacets["outputStatistics"].rowCount for one in lineage.outputs
    }
    assert rows == {"hourly": 1, "daily": 1}


def test_a_count_that_is_not_known_is_not_told(rolled: Lab) -> None:
    rolled.conn.execute("ALTER ROLE CURRENT_USER SET track_counts = off")
    try:
        lineage: Any = extracted(refresh(rollup="hourly"))
    finally:
        rolled.conn.execute("ALTER ROLE CURRENT_USER RESET track_counts")

    assert [one.outputFacets for one in lineage.outputs] == [{}]


def test_of_a_failed_cascade_what_was_refreshed_is_told(rolled: Lab) -> None:
    rolled.break_rollup("daily")

    lineage = extracted(refresh(), TaskInstanceState.FAILED)

    assert [one.name.rpartition(".")[2] for one in lineage.outputs] == ["_rollup_hourly"]
    assert [one.name.rpartition(".")[2] for one in lineage.inputs] == ["metrics"]


def test_of_a_task_that_got_nowhere_nothing_is_told() -> None:
    lineage = extracted(LakeTSRollupRefreshOperator(task_id="refresh"), TaskInstanceState.FAILED)

    assert (lineage.inputs, lineage.outputs) == ([], [])


def test_lineage_that_cannot_be_had_is_no_failure(rolled: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_lakets.exceptions import LakebaseConnectionError

    def lost(self: LakebaseHook) -> tuple[str, str]:
        raise LakebaseConnectionError("cut")

    monkeypatch.setattr(LakebaseHook, "lineage_names", lost)

    assert extracted(refresh()).outputs == []


def test_names_hold_the_host_that_was_looked_up_and_no_secret(
    principal: ControlPlane, define: Callable[..., None], postgres: EmbeddedPostgres
) -> None:
    define(schema="sales", extra={"project": "weather"})

    found = LakebaseHook().lineage_names()

    assert found == (f"postgres://{postgres.socket_dir}:5432", "sales")
    assert principal.minted == []


def test_sql_operators_on_the_connection_use_the_same_names(
    principal: ControlPlane, define: Callable[..., None]
) -> None:
    define(schema="sales", extra={"project": "weather"})
    hook = LakebaseHook()

    info = hook.get_openlineage_database_info(hook.connection)

    assert (f"{info.scheme}://{info.authority}", info.database) == hook.lineage_names()


@pytest.mark.parametrize(
    ("asset", "table"),
    [(rollup_asset("hourly"), "_rollup_hourly"), (tiered_asset("metrics"), "metrics")],
    ids=["rollup", "table"],
)
@pytest.mark.parametrize("with_hook", [True, False])
def test_an_asset_stands_for_its_table(lab: Lab, asset: Any, table: str, with_hook: bool) -> None:
    context = LakebaseHook() if with_hook else None

    found: Any = convert_asset_to_openlineage(asset, context)

    assert (found.namespace, found.name) == (server(lab), f"{lab.conn.info.dbname}.public.{table}")


def test_without_the_provider_nothing_is_asked_and_nothing_told(
    rolled: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_be_asked(self: LakebaseHook) -> tuple[str, str]:
        raise AssertionError

    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage", None)
    monkeypatch.setattr(LakebaseHook, "lineage_names", must_not_be_asked)

    assert refresh()._lineage is None


def test_with_the_provider_a_dag_file_does_not_import_it() -> None:
    code = (
        "import sys; from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator;"
        "LakeTSRollupRefreshOperator(task_id='x');"
        "print([name for name in sys.modules if name.startswith('openlineage')])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
