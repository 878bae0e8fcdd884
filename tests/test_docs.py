"""The documentation site: every public name has its place, and the site builds without warnings."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import restore_rwkv
from restore_rwkv.apps.cli.app import app
from tests.helpers import ROOT


@pytest.fixture
def api_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("api_pages", ROOT / "docs" / "api_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_described(api_pages: ModuleType) -> None:
    packages = ["restore_rwkv"] + [
        found.name
        for found in pkgutil.walk_packages(restore_rwkv.__path__, "restore_rwkv.")
        if found.ispkg and not found.name.startswith("restore_rwkv.apps")
    ]
    homes = api_pages.homes()
    for package in packages:
        module = importlib.import_module(package)
        names = api_pages.public_names(module) if hasattr(module, "__all__") else []
        if names:
            assert package in api_pages.ROOMS, f"docs/api_pages.py: add {package} to ROOMS"
        for name in names:
            assert homes[name, id(getattr(module, name))].endswith(f".{name}")


@pytest.mark.parametrize(
    ("command", "heading"),
    [
        ("fidelity", "What supports a restored image"),
        ("challenge", "Lesions that are planted on purpose"),
    ],
)
def test_the_document_of_a_command_names_its_options_and_no_other(
    command: str, heading: str
) -> None:
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section))
    of_command = options_of(command)
    assert of_command - named == {"--json", "--quiet", "--verbose"}  # of all commands
    assert named - of_command <= options_of("restore")


def options_of(command: str) -> set[str]:
    """Long names of the options of a command."""
    from typer.main import get_command

    found = get_command(app).commands[command]
    return {name for each in found.params for name in each.opts if name.startswith("--")}


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path: Path) -> None:
    for needed in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(needed, reason="make docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "trees"]
    built = subprocess.run(
        [*command, ROOT / "docs", tmp_path / "html"], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    operator = (tmp_path / "html" / "api" / "restore_rwkv.ops.html").read_text(encoding="utf-8")
    assert 'id="restore_rwkv.ops.bi_wkv"' in operator
