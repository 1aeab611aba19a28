"""A real browser for the tests: Debian's Chromium, or the one that Playwright brought."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

#: Nothing that a browser does by itself may reach the network.
_QUIET = (
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-gpu", "--disable-software-rasterizer"),
    *("--disable-background-networking", "--disable-component-update"),
)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Yield a browser, and close it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=[*_QUIET],
        )
        yield browser
        browser.close()


def serious_faults(page: Page) -> list[str]:
    """Return what axe-core takes for a serious or critical barrier on a page."""
    axe = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    # A page's policy lets no script in, but what the browser itself is told to run.
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate(
        "() => axe.run({ resultTypes: ['violations'] })"  # the other results take long to describe
    )
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
