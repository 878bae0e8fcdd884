"""Archives come from a folder or a client, are what was pinned, and failures say what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from restore_rwkv.data.open_scans import fetch
from restore_rwkv.data.open_scans.fetch import fetch_archive
from restore_rwkv.data.open_scans.table import Package
from restore_rwkv.errors import InputError
from tests.helpers.open_archives import packages

SDIST, WHEEL, NPM, DEBIAN = packages()
Call = tuple[list[str], dict[str, str] | None]
_VERSIONS = "Package: toolkit\nVersion: 0.9-1\n\nPackage: toolkit\nVersion: 1.0-5+deb12u1\n"


class Clients:
    """Stand-ins for pip, npm and apt-get; `serve` is what they leave in the folder."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.serve: bytes | None = None
        self.package = SDIST
        self.returncode = 0
        self.says = ""
        self.look: Callable[[Path], None] = lambda folder: None

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append((command, options["env"]))
        self.look(options["cwd"])
        if self.serve is not None:
            (options["cwd"] / self.package.archive).write_bytes(self.serve)
        said = _VERSIONS if "showsrc" in command and not self.says else self.says
        return subprocess.CompletedProcess(command, self.returncode, said, "")

    def serves(self, package: Package) -> None:
        self.package, self.serve = package, packages()[package]


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    clients = Clients()
    monkeypatch.setattr(fetch.subprocess, "run", clients.run)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: name)
    return clients


def refusal(package: Package, folder: Path) -> str:
    """The message, which is one line and names package, version and archive."""
    with pytest.raises(InputError) as caught:
        fetch_archive(package, folder)
    message = str(caught.value)
    assert message.startswith(f"{package}: ")
    assert package.version in message
    assert package.archive in message
    assert "\n" not in message
    assert not [path for path in folder.glob("*") if path.name != package.archive]
    return message


def test_an_archive_in_the_folder_needs_no_client(clients: Clients, tmp_path: Path) -> None:
    (tmp_path / NPM.archive).write_bytes(packages()[NPM])
    assert fetch_archive(NPM, tmp_path) == tmp_path / NPM.archive
    assert not clients.calls


@pytest.mark.parametrize("package", packages(), ids=lambda package: package.ecosystem)
def test_a_missing_archive_is_fetched_and_kept(
    clients: Clients, tmp_path: Path, package: Package
) -> None:
    clients.serves(package)
    path = fetch_archive(package, tmp_path / "downloads")
    assert path.read_bytes() == packages()[package]
    assert [file.name for file in path.parent.iterdir()] == [package.archive]
    called = len(clients.calls)
    fetch_archive(package, tmp_path / "downloads")
    assert len(clients.calls) == called


def test_pip_checks_the_hash_before_it_runs_an_sdist(clients: Clients, tmp_path: Path) -> None:
    required = []
    clients.look = lambda folder: required.append((folder / "requirements.txt").read_text())
    clients.serves(SDIST)
    fetch_archive(SDIST, tmp_path)
    [(command, _)] = clients.calls
    assert command[:3] == [sys.executable, "-m", "pip"]
    assert {"download", "--no-deps", "--require-hashes", "--no-binary"} <= set(command)
    assert required == [f"tiny==1.0 --hash=sha256:{SDIST.sha256}\n"]


def test_what_an_sdist_needs_is_put_aside(clients: Clients, tmp_path: Path) -> None:
    package = replace(SDIST, needs=("versioneer", "cython"))
    clients.package, clients.serve = package, packages()[SDIST]
    fetch_archive(package, tmp_path)
    (install, _), (download, environment) = clients.calls
    assert install[install.index("--target") + 2 :] == ["versioneer", "cython"]
    assert environment is not None
    assert environment["PYTHONPATH"].startswith(install[install.index("--target") + 1])
    assert "--no-build-isolation" in download


def test_wheels_are_not_built(clients: Clients, tmp_path: Path) -> None:
    clients.serves(WHEEL)
    fetch_archive(WHEEL, tmp_path)
    [(command, _)] = clients.calls
    assert command[command.index("--only-binary") + 1] == ":all:"


def test_npm_packs_the_pinned_version(clients: Clients, tmp_path: Path) -> None:
    clients.serves(NPM)
    fetch_archive(NPM, tmp_path)
    assert clients.calls == [(["npm", "pack", "--ignore-scripts", "files@1.0"], None)]


def test_apt_gets_lists_of_sources_of_its_own(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "apt"
    (system / "sources.list.d").mkdir(parents=True)
    (system / "sources.list").write_text("# deb no\ndeb [arch=amd64] mirror:/a stable main\n")
    (system / "sources.list.d" / "x.sources").write_text("Types: deb\nURIs: mirror:/b\n")
    (system / "sources.list.d" / "x.sources.disabled").write_text("Types: deb\n")
    monkeypatch.setattr(fetch, "_APT_FOLDER", system)
    seen: list[str] = []

    def look(folder: Path) -> None:
        seen[:] = [path.read_text() for path in sorted((folder / "sources").iterdir())]
        assert str(folder) in (folder / "apt.conf").read_text()

    clients.look = look
    clients.serves(DEBIAN)
    fetch_archive(DEBIAN, tmp_path / "downloads")
    assert seen == [
        "# deb no\ndeb-src [arch=amd64] mirror:/a stable main\n",
        "Types: deb-src\nURIs: mirror:/b\n",
    ]
    commands = [command for command, _ in clients.calls]
    assert [command[0] for command in commands] == ["apt-get", "apt-cache", "apt-get"]
    assert all("-c" in command for command in commands)
    assert commands[-1][-1] == "toolkit=1.0-5+deb12u1"
    assert "--download-only" in commands[-1]


def test_a_version_that_apt_does_not_know(clients: Clients, tmp_path: Path) -> None:
    clients.says = "Version: 2.0-1\n"
    assert "package lists do not have it" in refusal(DEBIAN, tmp_path)


@pytest.mark.parametrize("package", packages(), ids=lambda package: package.ecosystem)
def test_no_network(clients: Clients, tmp_path: Path, package: Package) -> None:
    clients.returncode = 1
    clients.says = "WARNING: retrying\nERROR: Could not find a version\nA log is there\n"
    message = refusal(package, tmp_path)
    assert "(ERROR: Could not find a version); check the network, or give a folder with " in message


def test_a_client_that_is_missing(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    assert "npm is missing; install it, or give a folder with files-1.0.tgz" in refusal(
        NPM, tmp_path
    )


def test_a_client_that_hangs(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(fetch.subprocess, "run", run)
    assert "timed out" in refusal(NPM, tmp_path)


def test_a_client_that_brings_nothing(clients: Clients, tmp_path: Path) -> None:
    assert "got no files-1.0.tgz" in refusal(NPM, tmp_path)


def test_another_archive_than_was_pinned(clients: Clients, tmp_path: Path) -> None:
    clients.package, clients.serve = NPM, b"something else"
    assert f"instead of {NPM.sha256}" in refusal(NPM, tmp_path)
    assert not any(tmp_path.iterdir())
    (tmp_path / NPM.archive).write_bytes(b"something else")
    assert "remove it, and fetch it again" in refusal(NPM, tmp_path)
