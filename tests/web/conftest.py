"""A browser for the page that restores without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from restore_rwkv.errors import StorageError
from tests.helpers import ROOT
from tests.helpers.site import blank, chromium, served
from tests.helpers.tools import REQUIRED

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PARTS = ROOT / "build" / "try-parts"  # as `make try` keeps them
WEIGHTS = "light-all-in-one"  # one export serves all tasks


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def modules(browser: Browser) -> Iterator[Page]:
    """An empty page that can import the modules of `web/`."""
    with served(ROOT / "web") as address:
        page = blank(browser, address)
        yield page
        page.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, built with one network, in the folder `try` of a site."""
    from web.build import build, exported
    from web.runtime import have_runtime

    try:
        runtime = have_runtime(PARTS / "runtime")
    except StorageError as error:
        if REQUIRED:
            raise
        pytest.skip(f"the runtime is absent: {error}")
    folder = tmp_path_factory.mktemp("site") / "try"
    return build(folder, {WEIGHTS: exported(WEIGHTS, PARTS)}, runtime)
