"""A real browser, in which tests look at pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

_OPTIONS = [
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
WITHOUT_GPU = ("--disable-gpu",)
WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""WebGL that is drawn by the processor."""
MILLISECONDS = 20_000
_MOST_OF_A_FRAME = 5_000  # milliseconds


@contextmanager
def started(*more: str) -> Iterator[Browser]:
    """A browser that asks for nothing by itself.

    Args:
        *more: options, such as `WITHOUT_GPU`.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=[*_OPTIONS, *more])
        yield browser
        browser.close()


def note_faults(context: BrowserContext, faults: list[str]) -> None:
    """Add errors of scripts and lines of the console of all pages to a list."""

    def note(line: Any) -> None:
        if line.type in ("error", "warning") and "GPU stall" not in line.text:
            faults.append(line.text)

    context.set_default_timeout(MILLISECONDS)
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("console", note)


def drawn(page: Page, frames: int = 2) -> None:
    """Wait until a page has drawn what it was to draw.

    A browser that has no time draws no frame, and a script has no time limit of its own: so the
    wait has one, and what is then looked at says what is missing.
    """
    page.evaluate(
        """([frames, most]) => new Promise((done) => {
            const next = (left) => (left ? requestAnimationFrame(() => next(left - 1)) : done());
            next(frames);
            setTimeout(done, most);
        })""",
        [frames, _MOST_OF_A_FRAME],
    )


class Offline:
    """Opens pages without any network, and notes what they ask for and get wrong.

    Args:
        browser: what they are opened in.
        faults: gets requests, errors and lines of the console.
    """

    def __init__(self, browser: Browser, faults: list[str]) -> None:
        self._browser, self._faults = browser, faults
        self._contexts: list[BrowserContext] = []

    def open(
        self,
        path: Path,
        width: int = 1280,
        scheme: Any = "light",
        script: bool = True,
        ready: str = "html[data-ready=yes]",
    ) -> Page:
        """Open a page and wait until its script is ready, as a selector says."""
        context = self._browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme=scheme,
            reduced_motion="reduce",
            java_script_enabled=script,
            offline=True,
        )
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.on("console", lambda message: self._faults.append(message.text))
        page.on("pageerror", lambda error: self._faults.append(str(error)))
        page.route(
            lambda url: not url.startswith(("file:", "data:")),
            lambda route: (self._faults.append(route.request.url), route.abort()),
        )
        page.goto(path.as_uri())
        if script:
            page.wait_for_selector(ready, state="attached")
        return page

    def close(self) -> None:
        """Close all pages."""
        for context in self._contexts:
            context.close()


def settled(page: Page) -> None:
    """Wait until what was asked for has been drawn, and what follows from it was done."""
    drawn(page, 1)
    page.wait_for_timeout(20)
