"""The pictures of the documentation, of a real Airflow at work: ``make screenshots``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from PIL import Image

from airflow_provider_lakets.local.api.faults import FaultName
from tests.e2e.page.browser import PHONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.e2e.airflow import Airflow, Run
    from tests.e2e.lake import Lake
    from tests.e2e.page.site import Site

    Visit = Callable[..., Page]

IMAGES = Path(__file__).parents[3] / "docs" / "images"
MOST_BYTES = 150_000
WINDOW = {"width": 1100, "height": 400}  # a page that is longer is taken whole
TABLES = {
    "flights": (40, "10 days", "24 days"),
    "payments": (20, "5 days", None),
    "sensors_indoor": (34, "8 days", "28 days"),
    "weather": (30, "10 days", "20 days"),
}


@pytest.fixture
def at_work(airflow: Airflow, lake: Lake) -> Airflow:
    """Return an Airflow whose jobs have run on a few tables, one of which waits for the feed."""
    for name, (days, tier, drop) in TABLES.items():
        lake.table(name, days=days, tier=tier, drop=drop)
    lake.rollup("flights_hourly", "flights")
    lake.rollup("weather_hourly", "weather")
    lake.touch("flights")  # for its RollUp to have something to do
    lake.wait_flushed()
    for dag_id in ("lakets_rollup_refresh", "lakets_tiering", "lakets_retention"):
        airflow.succeed(dag_id)
    lake.fault(FaultName.FEED_PAUSED)
    lake.touch("payments")
    for name in ("refunds", "returns"):
        lake.table(name, days=12, tier="4 days", drop=None)
    airflow.trigger("lakets_tiering").wait()
    lake.admin.execute("ANALYZE")
    return airflow


def test_pictures(at_work: Airflow, lake: Lake, site: Site, visit: Visit) -> None:
    conn = "?conn=lakebase_default"
    table, rollup = f"table{conn}&name=public.flights", f"rollup{conn}&name=flights_hourly"
    for name, address, options in (
        ("page", conn, {}),
        ("page-dark", conn, {"color_scheme": "dark"}),
        ("table", table, {}),
        ("rollup", rollup, {}),
        ("phone", conn, {"viewport": PHONE}),
    ):
        _take(visit(address, **{"viewport": WINDOW, **options}), name, whole=name != "phone")
    lake.cloud.clear_faults()
    window = visit(viewport={"width": 1280, "height": 720})
    window.goto(f"{site.root}/{_path(at_work.runs('lakets_tiering')[-1])}")
    window.get_by_text("candidates").first.wait_for()
    window.wait_for_load_state("networkidle")
    _take(window, "grid", whole=False)


def _path(run: Run) -> str:
    return f"dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}"


def _take(page: Page, name: str, *, whole: bool) -> None:
    """Write a picture whose colours are a palette: it is as sharp, and a third as large."""
    picture: Any = Image.open(io.BytesIO(page.screenshot(full_page=whole)))
    path = IMAGES / f"{name}.png"
    palette = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE)
    palette.save(path, optimize=True)
    assert path.stat().st_size < MOST_BYTES, f"{path} is larger than {MOST_BYTES:,} bytes"
