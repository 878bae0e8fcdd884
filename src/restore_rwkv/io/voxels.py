"""Voxels of formats whose header is text: where they are, how they are packed, and reading them."""

from __future__ import annotations

import bz2
import gzip
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError
from restore_rwkv.io.kinds import check_source
from restore_rwkv.io.missing import fill_missing
from restore_rwkv.io.payload import (
    GZIP,
    check_declared,
    read_exactly,
    refusing_damage,
    too_short,
)
from restore_rwkv.io.sidecar import read_sidecar
from restore_rwkv.io.stored import Float64Array, Stored
from restore_rwkv.io.volume import Source, Volume

_log = logging.getLogger(__name__)
_LONGEST_HEADER = 1 << 20  # bytes
_CHUNK = 1 << 20
Packing = Literal["raw", "text", "gzip", "zlib", "bzip2"]


@dataclass(frozen=True)
class Packed:
    """Voxels in a file.

    Attributes:
        path: The file that holds them.
        start: Position of the first byte, packed; -1 for the last bytes of the file.
        dtype: Type of a number, with its byte order.
        shape: Lengths of the axes, the fastest first.
        packing: How the numbers are written.
        skipped: Bytes to leave out after unpacking.
        lines: Lines to leave out before unpacking.
    """

    path: Path
    start: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    packing: Packing = "raw"
    skipped: int = 0
    lines: int = 0

    @property
    def voxels(self) -> int:
        """Their number."""
        count = 1
        for length in self.shape:
            count *= length  # Python integers: no overflow
        return count

    @property
    def size(self) -> int:
        """Their bytes, unpacked."""
        return self.voxels * int(self.dtype.itemsize)


def header_lines(path: Path, last: str | None) -> tuple[list[str], int]:
    """Return the lines of a text header at the start of a file, and where it ends.

    Args:
        path: The file.
        last: Start of the last line; None if an empty line follows the header.

    Raises:
        InputError: The header does not end.
    """
    lines: list[str] = []
    with path.open("rb") as stream:
        while stream.tell() < _LONGEST_HEADER:
            line = stream.readline(_LONGEST_HEADER)
            # As the system decodes names of files, so that a name in any encoding stays itself.
            text = line.decode("utf-8", "surrogateescape").strip("\r\n")
            if last is None and not text.strip():  # an empty line, or the end of the file
                return lines, stream.tell()
            if not line:
                break
            lines.append(text)
            if last is not None and text.replace(" ", "").startswith(last):
                return lines, stream.tell()
    raise InputError(f"{path.name}: the header is damaged (it does not end); export it again")


def file_beside(header: Path, name: str) -> Path:
    """Return the file that a header names, which has to be in the folder of the header.

    Raises:
        InputError: It is in another folder, also through a link, or does not exist.
    """
    folder = header.parent.resolve()
    path = header.parent / name
    if not name or not name.isprintable() or not path.resolve().is_relative_to(folder):
        raise InputError(
            f"{header.name}: names {name[:80]!r}, outside its own folder, for its voxels; "
            "put both in one folder, or save one file"
        )
    check_source(path)
    if path.is_dir() or path.samefile(header):
        raise InputError(f"{header.name}: names {name[:80]!r} for its voxels; export it again")
    return path


def read_packed(packed: Packed) -> npt.NDArray[np.generic]:
    """Read voxels, no more than the header declares.

    Returns:
        Array of `packed.shape`, in Fortran order, of `packed.dtype`.

    Raises:
        InputError: The file holds less, or its packed data more, or is damaged; or the memory
            does not hold them.
    """
    path, width = packed.path, int(packed.dtype.itemsize)
    deflated = packed.packing in ("gzip", "zlib")
    if packed.packing in ("raw", "gzip", "zlib"):
        start = max(packed.start, 0) if packed.packing == "raw" else 0
        check_declared(path, start + packed.size, packed.voxels, width, compressed=deflated)
    else:  # text: at least a digit and a blank for each voxel; bzip2: no bound
        least = 2 * packed.voxels - 1 if packed.packing == "text" else 0
        check_declared(path, least, packed.voxels, width, compressed=False)
    with refusing_damage(path), path.open("rb") as file:
        start = packed.start
        file.seek(start if start >= 0 else max(0, path.stat().st_size - packed.size))
        for _ in range(packed.lines):
            file.readline(_LONGEST_HEADER)
        if packed.packing == "text":
            return _from_text(file, packed)
        payload = _unpacked(file, packed)
    return np.frombuffer(payload, packed.dtype).reshape(packed.shape, order="F")


def _unpacked(file: IO[bytes], packed: Packed) -> bytes | bytearray:
    path, size = packed.path, packed.skipped + packed.size
    stream = file
    if packed.packing == "gzip" or (packed.packing == "zlib" and _peek(file) == GZIP):
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=file))
    elif packed.packing == "bzip2":
        stream = bz2.BZ2File(file)
    try:
        if packed.packing == "zlib" and stream is file:
            payload, more = _inflate(file, size)
        else:
            payload, more = read_exactly(stream, size), bool(stream.read(1))
    except gzip.BadGzipFile:
        raise
    except OSError as error:  # bzip2
        raise InputError(f"{path.name}: the packed data is damaged; copy it again") from error
    if payload is None:
        raise InputError(too_short(path, size))
    if more and packed.packing != "raw":
        raise InputError(
            f"{path.name}: holds more than the {size} bytes that its header gives; "
            "the file is damaged, copy or export it again"
        )
    if more:
        _log.warning("%s: bytes behind the voxels were ignored", path.name)
    return payload[packed.skipped :]


def _peek(file: IO[bytes]) -> bytes:
    position = file.tell()
    head = file.read(2)
    file.seek(position)
    return head


def _inflate(file: IO[bytes], size: int) -> tuple[bytearray | None, bool]:
    """Return so many bytes of zlib data, None if it has less, and whether it has more."""
    stream, payload = zlib.decompressobj(), bytearray()
    while not stream.eof and len(payload) <= size:
        chunk = stream.unconsumed_tail or file.read(_CHUNK)
        if not chunk:
            return None, False
        payload += stream.decompress(chunk, size + 1 - len(payload))
    more = len(payload) > size
    return (payload[:size] if len(payload) >= size else None), more


def _from_text(file: IO[bytes], packed: Packed) -> npt.NDArray[np.generic]:
    try:
        numbers = np.array(file.read().split(), dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{packed.path.name}: a voxel is not a number; export it again") from error
    if len(numbers) != packed.voxels:
        raise InputError(
            f"{packed.path.name}: holds {len(numbers)} voxels, its header gives {packed.voxels}; "
            "export it again"
        )
    return numbers.astype(packed.dtype).reshape(packed.shape, order="F")


def packed_volume(
    packed: Packed,
    path: Path,
    shapes: tuple[tuple[int, ...], tuple[int, int, int]],
    affine: Float64Array | None,
) -> Volume:
    """Read voxels as a volume, with what the files beside its header say of it.

    Args:
        packed: Where and how the voxels are stored.
        path: Header, or the one file.
        shapes: That of the file, and (X, Y, Z).
        affine: Voxel indices to mm; None without geometry.

    Raises:
        InputError: As for `read_packed`, or voxels inside the image are not finite.
    """
    values, missing = fill_missing(read_packed(packed).reshape(shapes[1]), path.name)
    parts = () if packed.path == path else (path, packed.path)
    beside = read_sidecar(path)
    stored = Stored(packed.dtype)
    source = Source(path, shapes[0], stored, parts=parts, findings=beside.findings)
    return Volume(values, affine, beside.unit, beside.modality, source, missing=missing)
