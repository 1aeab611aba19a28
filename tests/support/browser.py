"""A real browser for the tests: Debian's Chromium, or that of Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from .harness import DEADLINE_SECONDS

# A page waits for a condition with this timeout. The default is 5 seconds.
expect.set_options(timeout=DEADLINE_SECONDS * 1000)

#: Options that disable the browser's own network access.
_QUIET = (
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-gpu", "--disable-software-rasterizer"),
    *("--disable-background-networking", "--disable-component-update"),
)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Yield a browser, and close it at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=[*_QUIET],
        )
        yield browser
        browser.close()


def serious_faults(page: Page) -> list[str]:
    """Return the serious and critical accessibility problems that axe-core finds on a page."""
    axe = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    # The page's policy forbids other scripts, but scripts that the browser evaluates are allowed.
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate(
        "() => axe.run({ resultTypes: ['violations'] })"  # other results are slow
    )
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
