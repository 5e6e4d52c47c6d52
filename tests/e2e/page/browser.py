"""Debian's Chromium, driven by Playwright, and axe-core, which looks for what keeps people out."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Playwright

    from tests.e2e.page.site import Site

AXE = "axe-core@4.14.1"
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
CACHE = Path.home() / ".cache" / "lakets"
# Newer versions keep it in a cookie.
KEEPS_SESSION_IN_STORAGE = version("apache-airflow-core").startswith("3.1.")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def launch(playwright: Playwright) -> Browser:
    """Start the browser that the system has."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise AssertionError(
            f"The tests of the page need a browser: none of {', '.join(_NAMES)} is on PATH. "
            "On Debian: apt-get install chromium"
        )
    return playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])


def visit(browser: Browser, site: Site, user: str | None = "admin", **options: Any) -> BrowserContext:
    """
    Return a window in which a user has logged in.

    :param user: One of the site's, or None for nobody.
    :param options: Of the context, such as ``color_scheme``.
    """
    # axe is run in the page, which lets no foreign code in.
    context = browser.new_context(**{"viewport": WIDE, "bypass_csp": True, **options})
    context.set_default_timeout(30_000)
    if user is not None:
        context.add_cookies([{"name": "_token", "value": site.token(user), "url": site.root}])
    return context


def axe_source() -> str:
    """Return the script of axe-core; it is fetched with npm into the user's cache, once."""
    script = CACHE / f"{AXE}.js"
    if not script.is_file():
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_bytes(_fetch_axe())
    return script.read_text()


def _fetch_axe() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, AXE]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.SubprocessError) as err:
            said = getattr(err, "stderr", None) or err
            raise AssertionError(
                f"axe-core is fetched with npm, and `{' '.join(command)}` failed: {said}"
            ) from err
        (archive,) = Path(folder).glob("*.tgz")
        if hashlib.sha256(archive.read_bytes()).hexdigest() != AXE_SHA256:
            raise AssertionError(f"npm brought another {AXE} than was tried; it is not used.")
        with tarfile.open(archive) as content:
            member = content.extractfile("package/axe.min.js")
            assert member is not None
            return member.read()


def barriers(page: Page) -> list[str]:
    """Return the serious and critical findings of axe, each with the first element that has it."""
    page.evaluate(axe_source())
    found = page.evaluate("axe.run(document)")["violations"]
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def first_paint(page: Page) -> float:
    """Return the seconds from the start of the navigation to the first content that was painted."""
    script = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
    page.wait_for_function(f"{script} !== null")
    return float(page.evaluate(script)) / 1000


def has_horizontal_scroll(page: Page) -> bool:
    """Return whether the page is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
