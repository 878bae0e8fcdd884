"""Archives of packages from public registries, fetched with their ordinary clients."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from restore_rwkv.data.open_scans.table import Package
from restore_rwkv.errors import InputError
from restore_rwkv.io.record import file_sha256

_logger = logging.getLogger(__name__)

_TIMEOUT = 3600  # seconds for one command of a client
_COMPLAINT = re.compile(r"(ERROR|E:|npm (error|ERR!))")
_APT_FOLDER = Path("/etc/apt")


def fetch_archive(package: Package, folder: Path) -> Path:
    """Find the archive of a package in a folder, or fetch it into that folder.

    Python packages are fetched by pip, npm packages by npm and Debian sources by apt-get, with a
    temporary configuration where one is needed; nothing is installed or changed on the system.

    Args:
        package: package of the archive.
        folder: folder of the archive; created if missing.

    Returns:
        The path of the archive, with its SHA-256 checked.

    Raises:
        InputError: the archive cannot be fetched, or is not the pinned one; the message names the
            package and the remedy.
    """
    path = folder / package.archive
    if not path.exists():
        _logger.info("fetching %s", package)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            _CLIENTS[package.ecosystem](package, Path(temporary))
            fetched = Path(temporary) / package.archive
            if not fetched.is_file():
                raise InputError(f"{package}: got no {package.archive}; {_remedy(package)}")
            _check(package, fetched)
            os.replace(fetched, path)
    _check(package, path)
    return path


def _check(package: Package, path: Path) -> None:
    digest = file_sha256(path)
    if digest != package.sha256:
        raise InputError(
            f"{package}: {path} has SHA-256 {digest} instead of {package.sha256}; remove it, and "
            "fetch it again"
        )


def _pip(package: Package, folder: Path) -> None:
    """Fetch with pip. Inspecting an sdist runs its code, so pip must check the hash first."""
    requirement = folder / "requirements.txt"
    requirement.write_text(
        f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8"
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    choice = ["--only-binary", ":all:"]
    environment = dict(os.environ)
    if package.ecosystem == "PyPI sdist":
        choice = ["--no-binary", package.name]
    if package.needs:
        needs = folder / "needs"
        _run(package, [*pip, "install", "--quiet", "--target", str(needs), *package.needs], folder)
        above = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(needs), *([above] if above else [])])
        choice.append("--no-build-isolation")
    options = ["--no-deps", "--ignore-requires-python", "--require-hashes", "--dest", "."]
    command = [*pip, "download", *options, *choice, "-r", requirement.name]
    _run(package, command, folder, environment)


def _npm(package: Package, folder: Path) -> None:
    _run(package, ["npm", "pack", "--ignore-scripts", f"{package.name}@{package.version}"], folder)


def _apt(package: Package, folder: Path) -> None:
    """Fetch with apt-get, using separate package lists that include sources."""
    configuration = _apt_configuration(folder)
    client, cache = (["apt-get", "-q", "-c", configuration], ["apt-cache", "-c", configuration])
    updated = _run(package, [*client, "update"], folder, strict=False)  # single lists may fail
    listed = _run(package, [*cache, "showsrc", package.name], folder, strict=False)
    pattern = rf"Version: ((?:\d+:)?{re.escape(package.version)}-[^-\s]+)"
    versions = re.findall(pattern, listed)
    if not versions:
        complaint = _complaint(updated) or "it has another release"
        raise InputError(
            f"{package}: this system's package lists do not have it ({complaint}); "
            f"{_remedy(package)}"
        )
    source = f"{package.name}={versions[0]}"
    _run(package, [*client, "source", "--download-only", "--tar-only", source], folder)


def _apt_configuration(folder: Path) -> str:
    """Write a configuration with the lists of the system, changed to sources; return its path."""
    parts = folder / "sources"
    for sub in ("sources", "lists/partial", "cache/archives/partial"):
        (folder / sub).mkdir(parents=True)
    lists = [_APT_FOLDER / "sources.list", *sorted((_APT_FOLDER / "sources.list.d").glob("*"))]
    for number, path in enumerate(lists):
        if path.suffix in (".list", ".sources") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            text = re.sub(r"(?m)^deb(-src)?(?=\s)", "deb-src", text)
            text = re.sub(r"(?m)^Types:.*$", "Types: deb-src", text)
            (parts / f"{number}{path.suffix}").write_text(text, encoding="utf-8")
    path = folder / "apt.conf"
    path.write_text(
        'Dir::Etc::SourceList "/dev/null";\n'
        f'Dir::Etc::SourceParts "{parts}";\n'
        f'Dir::State::Lists "{folder / "lists"}";\n'
        f'Dir::Cache "{folder / "cache"}";\n'
        'APT::Sandbox::User "";\n',  # the default user cannot write here
        encoding="utf-8",
    )
    return str(path)


_CLIENTS: dict[str, Callable[[Package, Path], None]] = {
    "PyPI sdist": _pip,
    "PyPI wheel": _pip,
    "npm": _npm,
    "Debian source": _apt,
}


def _run(
    package: Package,
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    strict: bool = True,
) -> str:
    """Run a client and return its output; with `strict`, raise an error if it fails."""
    client = shutil.which(command[0])
    if client is None:
        raise InputError(f"{package}: {command[0]} is missing; install it, or {_give(package)}")
    try:
        done = subprocess.run(
            [client, *command[1:]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{package}: {command[0]} failed ({error}); {_remedy(package)}") from error
    output = done.stdout + "\n" + done.stderr
    if strict and done.returncode != 0:
        name = "pip" if "pip" in command else command[0]
        raise InputError(f"{package}: {name} failed ({_complaint(output)}); {_remedy(package)}")
    return output


def _complaint(output: str) -> str:
    """Error message in the output of a client: its first error line, or else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    complaints = [line for line in lines if _COMPLAINT.match(line)]
    return (complaints or lines[-1:] or [""])[0][:200]


def _remedy(package: Package) -> str:
    return f"check the network, or {_give(package)}"


def _give(package: Package) -> str:
    return f"give a folder with {package.archive} as downloads=FOLDER"
