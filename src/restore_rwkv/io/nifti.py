"""NIfTI-1 and NIfTI-2: single files (.nii, .nii.gz) and pairs (.hdr and .img).

A fourth axis is read and written one volume at a time.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.kinds import check_source, suffix_of
from restore_rwkv.io.missing import fill_missing
from restore_rwkv.io.nifti_header import (
    SHORTEST_HEADER,
    Layout,
    header_size,
    layout_of,
    parse_header,
)
from restore_rwkv.io.payload import (
    check_declared,
    is_gzip,
    opened,
    read_exactly,
    skip,
    too_short,
)
from restore_rwkv.io.sidecar import read_sidecar
from restore_rwkv.io.stored import Float64Array, scaled
from restore_rwkv.io.volume import Source, Volume

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

NO_EXTENSIONS = bytes(4)
"""What follows a header without extensions."""
_log = logging.getLogger(__name__)
_LARGEST_HEADER_FILE = 1 << 20  # bytes; extensions have some hundred


@dataclass(frozen=True, eq=False)
class NiftiSource(Source):
    """A NIfTI file with its header exactly as read.

    Attributes:
        header: The fixed fields as read, not repaired (copy before changing any).
        extensions: The bytes between the header and the voxels: extension flag and extensions.
        affine: (4, 4), affine of the header in mm, RAS+.
        volumes: Number of volumes in the file; `shape` is that of one.
        index: Which of them this is, from 0.
    """

    header: Nifti1Header
    extensions: bytes
    affine: Float64Array
    volumes: int = 1
    index: int = 0


@dataclass(frozen=True)
class _Opened:
    """A file at its first voxel."""

    path: Path  # as given
    voxels: Path  # the file with the voxels
    stream: IO[bytes]
    layout: Layout
    extensions: bytes
    compressed: bool
    parts: tuple[Path, ...] = ()  # both files of a pair


def read_nifti(path: Path, volume: int | None = None) -> Volume:
    """Read a NIfTI file whose voxels are real numbers in two or three dimensions.

    Axes of length 1 after the third are dropped from the data and restored by the writer.
    The format has neither modality nor unit; a JSON file beside it may (see ``read_sidecar``).
    Bytes behind the voxels are ignored with a warning, but those in a gzip file are refused.

    Args:
        path: A single file, or one of the two files of a pair.
        volume: Which volume of a 4-D image, from 0; None for an image with one.

    Raises:
        InputError: The file is damaged or truncated, has several volumes of which none is chosen,
            colours or complex numbers, a spacing of 0, or an unusable affine.
    """
    with _opened_at_voxels(path) as file:
        count = file.layout.volumes
        if volume is None and count > 1:
            raise InputError(
                f"{path.name}: the image has 4 axes, shape {file.layout.shape}; save one 3-D "
                f"volume per time point, or choose one with volume=0 to volume={count - 1}"
            )
        if not 0 <= (volume or 0) < count:
            raise InputError(f"{path.name}: has {count} volume(s), counted from 0; not {volume}")
        return next(_volumes(file, volume or 0))


def iterate_nifti(path: Path) -> Iterator[Volume]:
    """Read the volumes of a NIfTI file one after the other; errors as for `read_nifti`."""
    with _opened_at_voxels(path) as file:
        yield from _volumes(file, 0)


def count_nifti(path: Path) -> int:
    """Return the number of volumes by the header; errors as for `read_nifti`."""
    with _opened_at_voxels(path) as file:
        return file.layout.volumes


def _volumes(file: _Opened, first: int) -> Iterator[Volume]:
    layout, stream = file.layout, file.stream
    beside = read_sidecar(file.path)
    found = skip(stream, first * layout.volume_bytes)
    for index in range(first, layout.volumes):
        payload = read_exactly(stream, layout.volume_bytes) if found else None
        if payload is None:
            raise InputError(too_short(file.voxels, layout.size))
        if index == layout.volumes - 1:
            _check_end(file)
        numbers = np.frombuffer(payload, layout.stored.dtype).reshape(layout.grid, order="F")
        values, missing = fill_missing(scaled(numbers, layout.stored), file.path.name)
        shape = layout.grid if layout.volumes > 1 else layout.shape
        source = NiftiSource(
            *(file.path, shape, layout.stored, layout.raw, file.extensions, layout.affine),
            *(layout.volumes, index),
            parts=file.parts,
            findings=beside.findings,
        )
        yield Volume(
            *(values, layout.affine, beside.unit, beside.modality, source), missing=missing
        )


def _check_end(file: _Opened) -> None:
    if not file.stream.read(1):
        return
    if file.compressed:
        raise InputError(
            f"{file.voxels.name}: holds more than the {file.layout.size} bytes that its header "
            "gives; the file is damaged, copy or export it again"
        )
    _log.warning("%s: bytes behind the voxels were ignored", file.voxels.name)


def _sound(extensions: bytes, raw: Nifti1Header, path: Path) -> bytes:
    """Extensions as they are, or none where one claims more than there is."""
    place, size = 4, 8 if extensions[:1] not in (b"", b"\0") else 0
    while size >= 8 and place + 4 <= len(extensions):
        (size,) = struct.unpack(f"{raw.endianness}i", extensions[place : place + 4])
        place += size
        if place > len(extensions):
            _log.warning("%s: damaged extensions of the header were left out", path.name)
            return NO_EXTENSIONS
    return extensions


@contextmanager
def _opened_at_voxels(path: Path) -> Iterator[_Opened]:
    """Check the header and give the stream at the first voxel."""
    header_path, voxels_path = _files_of(path)
    with opened(header_path) as stream:
        raw = _read_header(stream, header_path)
        pair = _is_pair(raw, header_path)
        layout = layout_of(raw, header_path, single=not pair)
        compressed = is_gzip(voxels_path)
        width = int(layout.stored.dtype.itemsize)
        voxels = layout.volume_bytes // width
        check_declared(voxels_path, layout.size, voxels, width, compressed=compressed)
        rest = _LARGEST_HEADER_FILE if pair else layout.offset - len(raw.binaryblock)
        extensions = stream.read(rest)
        if not pair:
            extensions = _sound(extensions, layout.raw, path)
            yield _Opened(path, path, stream, layout, extensions, compressed)
            return
    if len(extensions) % 16 != 4:  # flag of four bytes, extensions of multiples of 16
        extensions = NO_EXTENSIONS
    with opened(voxels_path) as stream:
        if not skip(stream, layout.offset):
            raise InputError(too_short(voxels_path, layout.size))
        parts = (header_path, voxels_path)
        yield _Opened(path, voxels_path, stream, layout, extensions, compressed, parts)


def _read_header(stream: IO[bytes], path: Path) -> Nifti1Header:
    head = bytes(read_exactly(stream, SHORTEST_HEADER) or b"")
    size, _ = header_size(head) or (0, "")
    if not size and suffix_of(path.name).endswith(".gz") and not is_gzip(path):
        raise InputError(
            f"{path.name}: not a sound gzip file, and not a NIfTI file; copy or export it again"
        )
    return parse_header(head + stream.read(max(0, size - len(head))), path)


def _files_of(path: Path) -> tuple[Path, Path]:
    """Return the files of the header and of the voxels; the same one, but for pairs."""
    suffix = suffix_of(path.name)
    if suffix not in (".hdr", ".img", ".hdr.gz", ".img.gz"):
        return path, path
    stem = path.name[: -len(suffix)]
    other = {".hdr": ".img", ".img": ".hdr"}[suffix[:4]]
    names = [stem + ending for ending in (other, other + ".gz", other.upper())]
    partner = next((path.with_name(n) for n in names if path.with_name(n).exists()), None)
    if partner is None:
        raise InputError(f"{path.name}: its {other} file is not beside it; put both in one folder")
    check_source(partner)
    return (path, partner) if suffix.startswith(".hdr") else (partner, path)


def _is_pair(raw: Nifti1Header, path: Path) -> bool:
    """Whether the voxels are in another file."""
    magic = bytes(raw["magic"].tobytes())[:3]
    named = suffix_of(path.name).startswith(".hdr")
    if named and magic not in (b"ni1", b"ni2"):
        if magic in (b"n+1", b"n+2"):
            raise InputError(f"{path.name}: a single NIfTI file; name it .nii")
        raise InputError(
            f"{path.name}: an Analyze image without NIfTI header, which does not say where left "
            "and right are; convert it to NIfTI with the program that made it"
        )
    if not named and magic in (b"ni1", b"ni2"):
        raise InputError(
            f"{path.name}: the header of a pair, its voxels are in another file; "
            "name them .hdr and .img"
        )
    return named
