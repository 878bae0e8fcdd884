"""MGH, the format of FreeSurfer: .mgh, and .mgz compressed."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.missing import fill_missing
from restore_rwkv.io.payload import check_declared, is_gzip, opened, read_exactly, too_short
from restore_rwkv.io.sidecar import read_sidecar
from restore_rwkv.io.stored import Float32Array, Stored, encode, written_type
from restore_rwkv.io.volume import Source, Volume, three_axes

_OFFSET = 284
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_CODES = {kind[1:]: code for code, kind in _TYPES.items()}


def read_mgh(path: Path) -> Volume:
    """Read a volume of FreeSurfer. What follows its voxels (acquisition, history) is ignored.

    Raises:
        InputError: It is not an MGH file, has several frames, an unknown type, no orientation or an
            impossible geometry; or is damaged or truncated.
    """
    from nibabel.freesurfer.mghformat import MGHHeader

    with opened(path) as stream:
        head = read_exactly(stream, _OFFSET)
        version = -1 if head is None else int.from_bytes(head[:4], "big")
        if head is None or version != 1:
            raise InputError(f"{path.name}: not an MGH file of FreeSurfer; export it again")
        if int.from_bytes(head[28:30], "big", signed=True) <= 0:
            raise InputError(
                f"{path.name}: does not say where left and right are (goodRASFlag); convert it to "
                "NIfTI with mri_convert and its --in_orientation"
            )
        header = MGHHeader(bytes(head), check=False)
        shape = tuple(int(length) for length in header["dims"])
        grid = three_axes(shape, path.name)
        kind = _TYPES.get(int(header["type"]))
        if kind is None:
            raise InputError(
                f"{path.name}: voxels of type {int(header['type'])} are not supported; "
                "convert it with mri_convert"
            )
        voxels = grid[0] * grid[1] * grid[2]
        size = _OFFSET + voxels * int(kind[2])
        check_declared(path, size, voxels, int(kind[2]), compressed=is_gzip(path))
        payload = read_exactly(stream, size - _OFFSET)
        if payload is None:
            raise InputError(too_short(path, size))
    numbers = np.frombuffer(payload, kind).reshape(grid, order="F")
    values, missing = fill_missing(numbers, path.name)
    affine = np.eye(4)
    with np.errstate(all="ignore"):  # Volume refuses NaN and infinity by name
        columns = header["Mdc"].astype(np.float64).T * header["delta"].astype(np.float64)
        affine[:3, :3] = columns
        affine[:3, 3] = header["Pxyz_c"].astype(np.float64) - columns @ np.array(grid) / 2
    beside = read_sidecar(path)
    source = Source(path, shape, Stored(np.dtype(kind)), findings=beside.findings)
    return Volume(values, affine, beside.unit, beside.modality, source, missing=missing)


def write_mgh(
    volume: Volume, data: Float32Array, path: Path, dtype: Literal["float32", "source"]
) -> None:
    """Write a volume with an affine as MGH, compressed if the name ends in .mgz.

    Args:
        volume: Its geometry, and its source for the type.
        data: Values to write, (X, Y, Z).
        path: Where to write.
        dtype: "float32", or "source" for the type of the volume's source.
    """
    from nibabel.freesurfer.mghformat import MGHHeader

    stored = written_type(volume.source.stored if volume.source else None, dtype, ">")
    affine = np.asarray(volume.affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    header = MGHHeader()
    header["dims"] = (*data.shape, 1)
    header["type"] = _CODES[stored.dtype.str[1:]]
    header["delta"] = spacing
    header["Mdc"] = (affine[:3, :3] / spacing).T
    header["Pxyz_c"] = affine[:3] @ [*(np.array(data.shape) / 2), 1]
    head = header.binaryblock[:90].ljust(_OFFSET, b"\0")
    with path.open("wb") as file:
        if path.name.lower().endswith("z"):
            # Without name and time, so that equal images give equal files.
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
                _write(cast(IO[bytes], stream), head, data, stored)
        else:
            _write(file, head, data, stored)


def _write(stream: IO[bytes], head: bytes, data: Float32Array, stored: Stored) -> None:
    stream.write(head)
    for k in range(data.shape[2]):  # no copy of the whole volume
        stream.write(encode(data[..., k : k + 1], stored).tobytes(order="F"))


def holds_type(dtype: np.dtype[np.generic]) -> bool:
    """Whether MGH has this type of numbers."""
    return dtype.str[1:] in _CODES
