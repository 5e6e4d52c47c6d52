"""Airflow 3.1 keeps the session in the browser's storage, which a plain request has no part of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.page import browser as chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.e2e.page.site import Site

pytestmark = pytest.mark.skipif(
    not chromium.KEEPS_SESSION_IN_STORAGE, reason="this Airflow keeps the session in a cookie"
)


def test_the_page_is_shown_with_a_session_that_no_cookie_has(browser: Browser, site: Site) -> None:
    context = chromium.visit(browser, site, user=None)
    try:
        context.add_init_script(
            f"localStorage.setItem('token', {json.dumps(json.dumps(site.token('admin')))})"
        )
        page = context.new_page()
        page.goto(site.page)

        page.locator(".conn, select").first.wait_for()

        assert "Log in to Airflow" not in page.inner_text("body")
    finally:
        context.close()
