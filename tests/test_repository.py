"""What the files around the library promise: hooks, hosted workflows, citation."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.helpers import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_commit_hooks_run_what_make_check_runs() -> None:
    checks = re.search(r"^CHECKS := (.+)$", read("Makefile"), re.MULTILINE)
    hooks = re.findall(r"^ +entry: make --silent (\S+)$", read(".pre-commit-config.yaml"), re.M)
    assert checks is not None
    assert hooks == checks[1].split()
    assert read(".pre-commit-config.yaml").count("- id: ") == len(hooks)
    assert "\ncheck: $(CHECKS)\n" in read("Makefile")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_check_runs_every_checker() -> None:
    command = ["make", "--dry-run", "--always-make", "check"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for checker in (
        "ruff check .",
        "ruff format --check .",
        "mypy",
        "mypy --python-version 3.13",
        "lint-imports",
        "check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml",
    ):
        assert re.search(rf"^\S+/{re.escape(checker)}$", printed, re.MULTILINE), checker


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_page_installs_its_extra_and_opens_the_page() -> None:
    command = ["make", "--dry-run", "--always-make", "page"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert '--editable ".[page]"' in printed
    assert re.search(r"^\S+/restore-rwkv open$", printed, re.MULTILINE)


def test_workflows_name_actions_by_major_version_and_hold_no_secrets() -> None:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert [path.stem for path in workflows] == ["ci", "docs", "release"]
    for path in workflows:
        text = path.read_text(encoding="utf-8")
        for used in re.findall(r"uses: (\S+)", text):
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", used), used
        assert "secrets." not in text
        assert "permissions:\n  contents: read\n" in text


def test_citation_names_this_release_and_the_paper() -> None:
    text = read("CITATION.cff")
    assert f"\nversion: {PROJECT['version']}\n" in text
    assert f"\nlicense: {PROJECT['license']}\n" in text
    assert 'value: "arXiv:2407.11087"' in text


def test_source_distribution_names_every_top_level_entry() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("git cannot read this checkout")
    # setuptools adds these by itself.
    known = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "src"}
    named = set(read("MANIFEST.in").split())
    assert set(listed.stdout.split()) <= known | named
