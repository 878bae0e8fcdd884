"""Extraction of single files from an archive.

Archives are not trusted: no path inside the archive decides where a file is written, and extracted
files are bounded in size and checked by their SHA-256, as the archive was before it was opened.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from lzma import LZMAError
from pathlib import Path
from typing import IO

from restore_rwkv.data.open_scans.table import Package
from restore_rwkv.errors import InputError

_LARGEST = 1 << 28  # bytes of all files extracted from one archive
_CHUNK = 1 << 20
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ZIPPED = (".whl", ".zip")
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    LZMAError,
    EOFError,
    RuntimeError,  # zipfile: encrypted, or an unknown compression method
)


def extract(
    package: Package, archive: Path, digests: Mapping[str, str], folder: Path
) -> dict[str, Path]:
    """Extract exactly the named files from an archive.

    Args:
        package: package of the archive, for messages.
        archive: tar, compressed or not, or zip; checked by `fetch_archive`.
        digests: SHA-256 by path, as in `OpenScan.paths` and `OpenScan.digests`.
        folder: empty folder to extract to.

    Returns:
        For each path, the extracted file, or the folder with its files, below `folder`.

    Raises:
        InputError: the archive is damaged, or a named file is missing, unsafe, too large or other
            than the pinned one.
    """
    targets = {path: folder / str(number) for number, path in enumerate(digests)}
    found: dict[str, dict[str, str]] = {path: {} for path in digests}
    left = _LARGEST
    try:
        for name, stream in _files(archive, digests):
            path = name if name in digests else name[: name.rindex("/") + 1]
            base = name[name.rindex("/") + 1 :]
            if stream is None or not _SAFE_NAME.fullmatch(base):
                raise InputError(
                    f"{package}: {name!r} in {archive.name} is not a plain file; remove the archive"
                )
            targets[path].mkdir(parents=True, exist_ok=True)
            size, found[path][base] = _copy(stream, targets[path] / base, left)
            left -= size
            if left < 0:
                raise InputError(
                    f"{package}: the files named in {archive.name} are larger than "
                    f"{_LARGEST >> 20} MiB; remove the archive"
                )
    except _DAMAGED as error:
        raise InputError(
            f"{package}: {archive} is damaged ({error}); remove it and fetch it again"
        ) from error
    for path, digest in digests.items():
        _check_found(package, archive, path, digest, found[path])
    return {
        path: target if path.endswith("/") else target / next(iter(found[path]))
        for path, target in targets.items()
    }


def _check_found(
    package: Package, archive: Path, path: str, digest: str, digests: Mapping[str, str]
) -> None:
    """Check that a path was found in the archive and that its files are the pinned ones."""
    if not digests:
        raise InputError(f"{package}: {archive.name} has no {path}; correct the table of scans")
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    whole = hashlib.sha256(lines.encode()).hexdigest()
    got = whole if path.endswith("/") else next(iter(digests.values()))
    if got != digest:
        raise InputError(
            f"{package}: {path} has SHA-256 {got} instead of {digest}; correct the table of scans"
        )


def _files(archive: Path, paths: Mapping[str, str]) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and content of each entry at a path or directly below it; None if not a file."""

    def wanted(name: str) -> bool:
        above, _, base = name.rpartition("/")
        return bool(base) and (name in paths or f"{above}/" in paths)

    if archive.suffix in _ZIPPED:
        with zipfile.ZipFile(archive) as zipped:
            for entry in zipped.infolist():
                if wanted(entry.filename):
                    with zipped.open(entry) as stream:
                        yield entry.filename, stream
        return
    with tarfile.open(archive, "r|*") as tar:  # as a stream: decompressed only once
        for member in tar:
            if wanted(member.name) and not member.isdir():
                yield member.name, tar.extractfile(member) if member.isreg() else None


def _copy(stream: IO[bytes], path: Path, limit: int) -> tuple[int, str]:
    """Write a stream to a file until `limit` is exceeded; return the size and the SHA-256."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        while size <= limit and (block := stream.read(_CHUNK)):
            size += len(block)
            digest.update(block)
            file.write(block)
    return size, digest.hexdigest()
