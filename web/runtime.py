"""ONNX Runtime for browsers: three files of the npm package, fetched and checked."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from restore_rwkv.errors import InputError, StorageError

NAME = "onnxruntime-web"
VERSION = "1.30.0"
ADDRESS = f"https://registry.npmjs.org/{NAME}/-/{NAME}-{VERSION}.tgz"
PACKAGE = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
WASM = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": (
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
"""SHA-256 of the files that compute in WebAssembly, by name."""
WEBGPU = {
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": (
        "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28"
    ),
    "ort-wasm-simd-threaded.asyncify.wasm": (
        "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da"
    ),
}
"""The same of the files for WebGPU."""

_SECONDS = 300


def runtime_files(webgpu: bool = False) -> dict[str, str]:
    """Return the names of the files that a page needs, with their SHA-256."""
    return WASM | (WEBGPU if webgpu else {})


def have_runtime(folder: Path, *, webgpu: bool = False) -> Path:
    """Put the files of the runtime into a folder, unless they are there, and return it.

    They come from the npm package, by npm where it is installed, else from the public registry.

    Args:
        folder: where they are kept.
        webgpu: whether those for WebGPU are wanted too.

    Raises:
        StorageError: the package cannot be fetched.
        InputError: what was fetched has another SHA-256.
    """
    wanted = runtime_files(webgpu)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not all(_matches(folder / name, digest) for name, digest in wanted.items()):
            _unpack(_package(), wanted, folder)
    return check_runtime(folder, webgpu=webgpu)


def _unpack(package: bytes, wanted: Iterable[str], folder: Path) -> None:
    if hashlib.sha256(package).hexdigest() != PACKAGE:
        raise InputError(f"{NAME}-{VERSION}.tgz: has another SHA-256 than expected; fetch it again")
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for name in wanted:
            member = archive.extractfile(f"package/dist/{name}")
            if member is not None:
                (folder / name).write_bytes(member.read())


def check_runtime(folder: Path, *, webgpu: bool = False) -> Path:
    """Return a folder that holds the files of the runtime.

    Raises:
        InputError: one is missing, or has another SHA-256.
    """
    for name, digest in runtime_files(webgpu).items():
        if not _matches(folder / name, digest):
            raise InputError(
                f"{folder / name}: is missing or not the file of {NAME} {VERSION}; take it from "
                "dist/ of that npm package"
            )
    return folder


def _matches(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _package() -> bytes:
    """Fetch the package by npm, and without it, or where it fails, from the registry."""
    reasons = []
    npm = shutil.which("npm")
    if npm is not None:
        try:
            return _packed_by(npm)
        except (OSError, subprocess.SubprocessError) as error:
            reasons.append(f"npm: {error}")
    try:
        with urllib.request.urlopen(ADDRESS, timeout=_SECONDS) as answer:
            data: bytes = answer.read()
            return data
    except OSError as error:
        reasons.append(f"{ADDRESS}: {error}")
    raise StorageError(
        f"{NAME} {VERSION} cannot be fetched ({'; '.join(reasons)}); give its dist folder with "
        "--runtime FOLDER"
    )


def _packed_by(npm: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{NAME}@{VERSION}", "--silent"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_SECONDS)
        return (Path(folder) / f"{NAME}-{VERSION}.tgz").read_bytes()
