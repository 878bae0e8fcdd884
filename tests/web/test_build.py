"""The files of the page that restores in the browser, and what they are put together from."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from restore_rwkv.errors import InputError, StorageError
from restore_rwkv.model import find_weights
from tests.helpers import ROOT
from web import build, runtime
from web.about import about

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WEB = ROOT / "web"
OWN = sorted(path for path in WEB.iterdir() if path.suffix in (".js", ".css", ".html"))
SHARED = [build.STATIC / name for name in build.SHARED if name.endswith(".js")]


def test_the_page_has_the_viewer_of_open_and_all_elements_that_modules_use() -> None:
    page = build.page()
    known = re.findall(r'\sid="([^"]+)"', page)
    assert len(known) == len(set(known))
    modules = [path for path in (*OWN, *SHARED) if path.suffix == ".js"]
    used = {
        name
        for path in modules
        for name in re.findall(r'byId\("([^"]+)"\)', path.read_text(encoding="utf-8"))
    }
    assert {"pane-before", "pick"} <= used <= set(known)
    described = re.findall(r'(?:for|aria-labelledby|aria-describedby)="([^"]+)"', page)
    assert set(described) <= set(known)
    assert "Not a medical device" in page


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_names_no_other_server_and_no_file_that_is_absent(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    there = {name.name for name in OWN} | {f"page/{name}" for name in build.SHARED}
    named = re.findall(r'(?:from |import\(|href=|src=)"(?:\./)?([^"#:]+)"', text)
    assert [name for name in named if name not in there] == []
    assert "style=" not in text  # the policy of the page forbids them
    assert len(text.splitlines()) < 300


def test_shared_modules_import_only_shared_ones() -> None:
    for path in SHARED:
        names = re.findall(r'(?:from |import\()"\./([^"]+)"', path.read_text(encoding="utf-8"))
        assert [n for n in names if n not in build.SHARED and not n.startswith("vendor/")] == []


def test_the_policy_allows_this_server_only() -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', build.page())
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    sources = {source for rule in rules.values() for source in rule.split()}
    assert sources == {"'none'", "'self'", "'wasm-unsafe-eval'", "blob:", "data:"}


def test_the_page_is_told_what_the_weights_record() -> None:
    name = "light-ct-denoise"
    told = json.loads(json.dumps(about({name: find_weights(name)}, webgpu=False), allow_nan=False))
    assert list(told["tasks"]) == ["ct-denoise"]
    assert told["weights"][name]["noise_level"] is True
    assert told["weights"][name]["strength"]["ct-denoise"]["points"][0] == [0, 0]
    assert told["tasks"]["ct-denoise"]["rules"]["measures"]["noise"]["margin"] == 2


def test_other_files_of_the_runtime_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ort\.wasm\.min\.mjs: is missing or not the file"):
        runtime.check_runtime(tmp_path)
    (tmp_path / "ort.wasm.min.mjs").write_text("changed")
    with pytest.raises(InputError, match="not the file of onnxruntime-web 1"):
        runtime.check_runtime(tmp_path)


def test_without_npm_and_network_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)

    def unreachable(address: str, timeout: float) -> None:
        raise OSError("no route")

    monkeypatch.setattr(runtime.urllib.request, "urlopen", unreachable)
    with pytest.raises(StorageError, match=r"cannot be fetched .*no route.*--runtime FOLDER"):
        runtime.have_runtime(tmp_path)


def test_a_changed_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_package", lambda: b"another archive")
    with pytest.raises(InputError, match="another SHA-256"):
        runtime.have_runtime(tmp_path)


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not such a page"):
        build.build(tmp_path, {}, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_neither_is_one_that_only_has_a_file_of_such_a_name(tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text("{}")
    with pytest.raises(InputError, match="is not such a page"):
        build.build(tmp_path, {}, tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is not such a page"):
        build.build(tmp_path / "file", {}, tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_of_the_page_is_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = settings["tool"]["setuptools"]
    assert packages["packages"]["find"]["where"] == ["src"]  # and the page is in `web`
    patterns = packages["package-data"]["restore_rwkv"]
    shipped = [path for pattern in patterns for path in build.PACKAGE.glob(pattern)]
    assert build.STATIC / "request.js" in shipped
    assert [path for path in shipped if path.suffix in (".wasm", ".mjs", ".onnx")] == []
