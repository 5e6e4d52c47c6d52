"""One API server below a prefix and one browser for all that is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import sync_playwright

from tests.e2e.page import browser as chromium
from tests.e2e.page.seeds import DATABASES, seed
from tests.e2e.page.site import Site, connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.e2e.conftest import World


@pytest.fixture(scope="package")
def site(world: World) -> Iterator[Site]:
    """Yield the second API server, with databases of its own to show."""
    seed(world.lakebase.postgres, world.cloud.state.jobs.client_id)
    site = Site(
        world.folder / "site",
        dags=world.folder / "dags",
        logs=world.airflow.home / "logs",
        metadata=world.metadata_url,
        connections=connections(world.cloud, DATABASES),
    )
    try:
        site.start()
        site.wait_ready()
        yield site
    finally:
        site.stop()


# For the package alone: while Playwright runs, nothing else in this process can run an event loop.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = chromium.launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Yield a function that opens an address below the page's, with options of the window."""
    if chromium.KEEPS_SESSION_IN_STORAGE:
        # Each page is refused first, and fetches itself again: test_session.py.
        pytest.skip("Airflow 3.1 knows no session by a cookie")
    opened: list[BrowserContext] = []

    def open_page(address: str = "", *, user: str | None = "admin", **options: Any) -> Page:
        context = chromium.visit(browser, site, user, **options)
        opened.append(context)
        page = context.new_page()
        page.goto(site.page + address)
        return page

    yield open_page
    for context in opened:
        context.close()
