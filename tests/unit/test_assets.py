"""The names of assets: each has one spelling, for tasks that emit events and DAGs that wait."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import Asset

from airflow_provider_lakets.assets import create_asset, parse, rollup_asset, tiered_asset

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("asset", "uri"),
    [
        (lambda: rollup_asset("hourly"), "lakets://lakebase_default/rollup/hourly"),
        (lambda: rollup_asset("hourly", lakebase_conn_id="prod"), "lakets://prod/rollup/hourly"),
        (
            lambda: rollup_asset("a/b hour?#%é"),
            "lakets://lakebase_default/rollup/a%2Fb%20hour%3F%23%25%C3%A9",
        ),
        (lambda: rollup_asset("h", lakebase_conn_id="a:b/c"), "lakets://a%3Ab%2Fc/rollup/h"),
        (lambda: tiered_asset("metrics"), "lakets://lakebase_default/tiered/public/metrics"),
        (lambda: tiered_asset("other.metrics"), "lakets://lakebase_default/tiered/other/metrics"),
        (lambda: create_asset(rollup="hourly"), "lakets://lakebase_default/rollup/hourly"),
        (lambda: create_asset(table="m", lakebase_conn_id="x"), "lakets://x/tiered/public/m"),
    ],
)
def test_an_asset_is_named_after_the_connection_and_the_thing(asset: Callable[[], Asset], uri: str) -> None:
    made = asset()

    assert (made.name, made.uri) == (uri, uri)


def test_a_name_comes_out_of_the_uri_as_it_went_in() -> None:
    odd = "a/b hour?#%é"

    assert parse(rollup_asset(odd, lakebase_conn_id="x y").uri) == ["x y", "rollup", odd]


@pytest.mark.parametrize(
    "written",
    [
        "LAKETS://prod/rollup/hourly",
        "lakets://prod/rollup/hourly/",
        "lakets://prod/rollup/hourly?token=abc",
        "lakets://prod/rollup/hourly#part",
        "lakets://prod/rollup/h%6Furly",
    ],
)
def test_a_uri_written_by_hand_becomes_the_one_that_is_emitted(written: str) -> None:
    assert Asset(uri=written).uri == rollup_asset("hourly", lakebase_conn_id="prod").uri


def test_a_password_does_not_stay_in_a_uri() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow warns of it, too
        asset = Asset(uri="lakets://me:very-5ecret@prod/rollup/hourly")

    assert asset.uri == "lakets://prod/rollup/hourly"


@pytest.mark.parametrize(
    "written",
    [
        "lakets://prod",
        "lakets:///rollup/hourly",
        "lakets://prod/rollup",
        "lakets://prod/rollups/hourly",
        "lakets://prod/rollup/public/hourly",
        "lakets://prod/tiered/metrics",
        "lakets://prod/tiered//metrics",
    ],
)
def test_a_uri_that_can_never_have_an_event_is_refused(written: str) -> None:
    with pytest.raises(
        ValueError, match="names no asset of LakeTS: write lakets://<connection>/rollup/<name>"
    ):
        Asset(uri=written)


@pytest.mark.parametrize("arguments", [{}, {"rollup": "hourly", "table": "metrics"}])
def test_an_asset_is_of_a_rollup_or_of_a_table(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give rollup or table"):
        create_asset(**arguments)


def test_an_asset_has_no_other_name() -> None:
    # Airflow distinguishes assets by name and URI: one with another name would never have an event.
    with pytest.raises(ValueError, match="name of a LakeTS asset is its URI"):
        tiered_asset("metrics", name="my table")


def test_naming_an_asset_in_a_dag_file_imports_nothing_heavy() -> None:
    code = (
        "import json, sys; import airflow.sdk; from airflow_provider_lakets.assets import rollup_asset;"
        "rollup_asset('hourly'); print(json.dumps(sorted(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True)

    loaded = {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert loaded.isdisjoint({"psycopg", "databricks", "deltalake", "pyarrow"})
