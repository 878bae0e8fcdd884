"""A real browser without any network, in which tests look at pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@contextmanager
def started() -> Iterator[Browser]:
    """A browser that asks for nothing by itself."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        yield playwright.chromium.launch(executable_path=program, args=_OPTIONS)


class Offline:
    """Opens pages without any network, and notes what they ask for and get wrong.

    Args:
        browser: what they are opened in.
        faults: gets requests, errors and lines of the console.
    """

    def __init__(self, browser: Browser, faults: list[str]) -> None:
        self._browser, self._faults = browser, faults
        self._contexts: list[BrowserContext] = []

    def open(self, path: Path, width: int, scheme: Any, script: bool) -> Page:
        """Open a page and wait until its script is ready."""
        context = self._browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme=scheme,
            reduced_motion="reduce",
            java_script_enabled=script,
            offline=True,
        )
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: self._faults.append(message.text))
        page.on("pageerror", lambda error: self._faults.append(str(error)))
        page.route(
            lambda url: not url.startswith(("file:", "data:")),
            lambda route: (self._faults.append(route.request.url), route.abort()),
        )
        page.goto(path.as_uri())
        if script:
            page.wait_for_selector("html[data-ready=yes]")
        return page

    def close(self) -> None:
        """Close all pages."""
        for context in self._contexts:
            context.close()


def settled(page: Page) -> None:
    """Wait until what was asked for has been drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 20)))")
