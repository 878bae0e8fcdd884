"""Writing of NIfTI, with the header of the source where there is one."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import numpy as np

from restore_rwkv.io.nifti import NO_EXTENSIONS, NiftiSource
from restore_rwkv.io.stored import Float32Array, Float64Array, Stored, encode
from restore_rwkv.io.volume import Volume

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

LONGEST_AXIS = 32767
"""Voxels along an axis that NIfTI-1 can hold."""


def write_nifti(
    template: Volume,
    volumes: Iterable[Float32Array],
    path: Path,
    dtype: Literal["float32", "source"],
    count: int = 1,
) -> None:
    """Write volumes with an affine as NIfTI, as they come.

    A volume read from NIfTI keeps its header; only data type, scaling, display range and data
    offset change, and for another grid along the same axes its size, spacing and both affines.
    Other volumes get a NIfTI-1 header with qform and sform code 1 (scanner) in mm.

    Args:
        template: Gives grid and source of all volumes.
        volumes: Values of each, (X, Y, Z).
        path: Where to write; compressed if it ends in .gz.
        dtype: "float32", or "source" for the type and scaling of the template's source.
        count: Number of volumes; the image has a fourth axis if there are several.
    """
    stored = Stored(np.dtype(np.float32))
    if dtype == "source" and template.source is not None and template.source.stored is not None:
        stored = template.source.stored
    header, extensions = nifti_header(template, count)
    header.set_data_dtype(stored.dtype)
    header["scl_slope"], header["scl_inter"] = stored.slope, stored.inter
    header["cal_min"] = header["cal_max"] = 0
    header["vox_offset"] = len(header.binaryblock) + len(extensions)
    stored = Stored(header.get_data_dtype(), stored.slope, stored.inter)
    with path.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # Without name and time, so that equal images give equal files.
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
                _write_stream(stream, header.binaryblock + extensions, volumes, stored)
        else:
            _write_stream(file, header.binaryblock + extensions, volumes, stored)


def _write_stream(
    stream: IO[bytes] | gzip.GzipFile,
    head: bytes,
    volumes: Iterable[Float32Array],
    stored: Stored,
) -> None:
    stream.write(head)
    for data in volumes:
        for k in range(data.shape[-1]):  # no copy of the whole volume
            stream.write(encode(data[..., k : k + 1], stored).tobytes(order="F"))


def nifti_header(volume: Volume, count: int = 1) -> tuple[Nifti1Header, bytes]:
    """Return the header of a volume, of its source where it fits, and the bytes behind it."""
    from nibabel.nifti1 import Nifti1Header

    source, affine = volume.source, np.asarray(volume.affine)
    if isinstance(source, NiftiSource):
        header: Nifti1Header = source.header.copy()
        header["magic"] = header.single_magic
        _set_count(header, count, source.volumes)
        if np.array_equal(source.affine, affine) and _grid_of(header) == volume.data.shape:
            return header, source.extensions
        indices = np.linalg.solve(source.affine, affine)  # of the file's voxels, by ours
        if np.allclose(indices[:3, :3], np.diag(np.diag(indices)[:3]), rtol=0, atol=1e-6):
            _move_grid(header, indices, volume.data.shape)
            return header, source.extensions
    header = Nifti1Header()
    header.set_data_shape((*volume.data.shape, count) if count > 1 else volume.data.shape)
    header.set_qform(volume.affine, code=1)
    header.set_sform(volume.affine, code=1)
    header.set_xyzt_units(xyz="mm")
    return header, NO_EXTENSIONS


def _set_count(header: Nifti1Header, count: int, before: int) -> None:
    if count == before:
        return
    header["dim"][0] = 4 if count > 1 else 3
    header["dim"][3:5] = max(1, header["dim"][3]), count


def _grid_of(header: Nifti1Header) -> tuple[int, ...]:
    x, y, z = (*header.get_data_shape(), 1)[:3]
    return (int(x), int(y), int(z))


def _move_grid(header: Nifti1Header, indices: Float64Array, shape: tuple[int, ...]) -> None:
    """Describe another grid along the same axes, in each of both affines that is in use."""
    axes = min(3, int(header["dim"][0]))
    header["dim"][1 : axes + 1] = shape[:axes]
    if header["sform_code"] > 0:
        header["srow_x"], header["srow_y"], header["srow_z"] = (header.get_sform() @ indices)[:3]
    if header["qform_code"] > 0:
        repaired = header.copy()
        repaired["pixdim"][0] = -1 if header["pixdim"][0] == -1 else 1
        try:
            origin = repaired.get_qform() @ indices[:, 3]
        except ValueError:  # the sform is valid; an unreadable qform cannot be moved
            header["qform_code"] = 0
        else:
            header["qoffset_x"], header["qoffset_y"], header["qoffset_z"] = origin[:3]
    header["pixdim"][1:4] *= np.diag(indices)[:3]
