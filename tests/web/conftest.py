"""A browser for the page that restores without a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.helpers import ROOT
from tests.helpers.site import blank, chromium, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def modules(browser: Browser) -> Iterator[Page]:
    """An empty page that can import the modules of `web/`."""
    with served(ROOT / "web") as address:
        page = blank(browser, address)
        yield page
        page.close()
