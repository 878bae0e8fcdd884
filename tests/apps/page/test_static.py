"""Files of the page: what is vendored is unchanged, and nothing is loaded from elsewhere."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from restore_rwkv.apps.page import routes

STATIC = Path(routes.__file__).with_name("static")
OWN = sorted(path for path in STATIC.iterdir() if path.is_file())


def test_the_vendored_viewer_is_the_file_of_its_package() -> None:
    said = dict(
        line.split(": ", 1)
        for line in (STATIC / "vendor" / "niivue.txt").read_text().splitlines()
        if ": " in line
    )
    data = (STATIC / "vendor" / "niivue.umd.js").read_bytes()
    assert hashlib.sha256(data).hexdigest() == said["file SHA-256"]
    assert said["version"] == "0.69.0"
    assert "Redistribution and use" in (STATIC / "vendor" / "niivue.LICENSE.txt").read_text()


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_of_the_page_names_no_other_server_and_no_file_that_is_absent(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "://" not in text
    names = re.findall(r"""(?:from |import\()"\./([^"]+)"|"/static/([^"]+)\"""", text)
    assert [name for pair in names for name in pair if name and not (STATIC / name).is_file()] == []
    assert "style=" not in text  # the policy of the page forbids them
    assert re.search(r"\son\w+=", text) is None or path.suffix == ".js"


def test_modules_use_only_elements_that_the_page_has() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    known = set(re.findall(r'\sid="([^"]+)"', page))
    used = {
        name
        for path in OWN
        if path.suffix == ".js"
        for name in re.findall(r'byId\("([^"]+)"\)', path.read_text(encoding="utf-8"))
    }
    assert used
    assert used - known == set()
