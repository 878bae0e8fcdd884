"""An archive that is sent while it is packed, and never lies on the disk."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

_CHUNK = 1 << 20


class _Sink:
    """Takes what `zipfile` writes, until it is sent; it cannot be wound back."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        """Do nothing: `taken` is called often enough."""

    def taken(self) -> bytes:
        data = bytes(self._written)
        self._written.clear()
        return data


def zipped(folder: Path) -> Iterator[bytes]:
    """Give the bytes of an archive with all files of a folder, stored as they are.

    Raises:
        OSError: a file cannot be read.
    """
    sink = _Sink()
    with zipfile.ZipFile(cast(IO[bytes], sink), "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            entry.external_attr = 0o644 << 16
            with path.open("rb") as file, archive.open(entry, "w", force_zip64=True) as packed:
                while chunk := file.read(_CHUNK):
                    packed.write(chunk)
                    yield sink.taken()
    yield sink.taken()
