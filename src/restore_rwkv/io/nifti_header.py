"""Headers of NIfTI-1 and NIfTI-2: parsed with nibabel, and checked before any voxel is read."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.affines import check_spacing
from restore_rwkv.io.stored import Float64Array, Stored
from restore_rwkv.io.volume import one_line, three_axes

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

_log = logging.getLogger(__name__)
SHORTEST_HEADER = 348
"""Bytes of a NIfTI-1 header; one of NIfTI-2 has 540."""
_ERROR_LEVEL = 40  # nibabel's severity from which a header cannot be interpreted
_MILLIMETRES = {1: 1000.0, 3: 0.001}  # NIfTI unit codes metre and micrometre
_VECTORS = {1005: "symmetric matrices", 1006: "displacements", 1007: "vectors", 2003: "colours"}
_CODES = range(6)


@dataclass(frozen=True, eq=False)
class Layout:
    """What a header says about the voxels.

    Attributes:
        raw: The header as read.
        shape: Shape of the image, including axes of length 1.
        grid: (X, Y, Z) of one volume.
        volumes: Number of volumes along the fourth axis.
        stored: Number format.
        offset: Position of the first voxel in its file.
        affine: (4, 4), voxel indices to mm in RAS+.
    """

    raw: Nifti1Header
    shape: tuple[int, ...]
    grid: tuple[int, int, int]
    volumes: int
    stored: Stored
    offset: int
    affine: Float64Array

    @property
    def volume_bytes(self) -> int:
        """Size of one volume as it is stored."""
        x, y, z = self.grid
        return x * y * z * int(self.stored.dtype.itemsize)

    @property
    def size(self) -> int:
        """Size of the uncompressed file with the voxels."""
        return self.offset + self.volumes * self.volume_bytes


def parse_header(data: bytes | bytearray, path: Path) -> Nifti1Header:
    """Return the header as it is.

    Raises:
        InputError: The bytes do not start with a NIfTI header.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    kinds: dict[int, Callable[..., Nifti1Header]] = {348: Nifti1Header, 540: Nifti2Header}
    size = header_size(data)
    if size is None or len(data) < size[0]:
        raise InputError(f"{path.name}: not a NIfTI file; give a .nii or .nii.gz image")
    return kinds[size[0]](bytes(data[: size[0]]), size[1], check=False)


def header_size(data: bytes | bytearray) -> tuple[int, str] | None:
    """Return size and byte order of a header by its first four bytes; None if it is not NIfTI."""
    for order in "<>":
        size = struct.unpack(order + "i", data[:4])[0] if len(data) >= 4 else 0
        if size in (348, 540):
            return size, order
    return None


def layout_of(raw: Nifti1Header, path: Path, *, single: bool) -> Layout:
    """Check a header and return what it says about the voxels.

    Args:
        raw: The header as read.
        path: Its file, for messages.
        single: Whether the voxels follow in the same file.

    Raises:
        InputError: A field is damaged, or gives voxels, a spacing or an affine that are not read.
    """
    from nibabel.spatialimages import HeaderDataError

    header = _interpreted(raw, path)
    shape = tuple(int(length) for length in header.get_data_shape())
    volumes = _volumes(shape, int(header["intent_code"]), path)
    grid = three_axes(shape[:3] if volumes > 1 else shape, path.name)
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        kind = "colour" if dtype.kind == "V" else "complex"
        raise InputError(
            f"{path.name}: {kind} voxels are not supported; save one real value for each voxel"
        )
    if np.isinf(header["scl_slope"]):
        raise InputError(f"{path.name}: the slope is infinite; fix scl_slope")
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as error:
        raise InputError(f"{path.name}: {one_line(error)}; fix scl_slope and scl_inter") from error
    stored = Stored(dtype, 1.0 if slope is None else slope, 0.0 if inter is None else inter)
    offset = int(header["vox_offset"])
    if single and not offset:
        offset = int(header.single_vox_offset)  # 0 means the smallest offset
    if offset < 0:
        raise InputError(f"{path.name}: the header is damaged (vox_offset {offset})")
    return Layout(raw, shape, grid, volumes, stored, offset, _affine_in_mm(header, path))


def _volumes(shape: tuple[int, ...], intent: int, path: Path) -> int:
    """Return the number of volumes along a time axis; 1 where `three_axes` decides."""
    if len(shape) < 4 or shape[3] <= 1 or any(length != 1 for length in shape[4:]):
        return 1
    if intent in _VECTORS:
        raise InputError(
            f"{path.name}: {_VECTORS[intent]} are not supported; save one real value for each voxel"
        )
    return shape[3]


def _interpreted(header: Nifti1Header, path: Path) -> Nifti1Header:
    """Return a copy with the usual small repairs (qfac 0 is 1, ...)."""
    from nibabel.spatialimages import HeaderDataError

    axes = int(header["dim"][0])
    if not 0 <= axes <= 7:
        raise InputError(f"{path.name}: the header is damaged ({axes} axes, NIfTI has 1 to 7)")
    spacing = header["pixdim"][1 : 1 + min(3, axes)]
    for axis, length in enumerate(spacing.tolist()):
        if length == 0 or not np.isfinite(length):
            raise InputError(f"{path.name}: spacing is {length:g} mm on axis {axis}; fix pixdim")
    check_spacing(np.abs(spacing.astype(np.float64)) * _unit(header), path.name)
    for form in ("qform_code", "sform_code"):
        if int(header[form]) not in _CODES:
            raise InputError(f"{path.name}: {form} is {int(header[form])}; give 0 to 5")
    if not np.isfinite(header["vox_offset"]):
        raise InputError(f"{path.name}: the header is damaged (vox_offset is not finite)")
    copy: Nifti1Header = header.copy()
    try:
        copy.check_fix(_log, _ERROR_LEVEL)
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise InputError(f"{path.name}: the header is damaged ({one_line(error)})") from error
    if int(header["bitpix"]) not in (0, int(copy["bitpix"])):
        raise InputError(
            f"{path.name}: the header is damaged ({int(header['bitpix'])} bits a voxel, but the "
            f"data type {copy.get_data_dtype()} has {int(copy['bitpix'])})"
        )
    return copy


def _unit(header: Nifti1Header) -> float:
    """Millimetres of the unit of length."""
    return _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)


def _affine_in_mm(header: Nifti1Header, path: Path) -> Float64Array:
    from nibabel.spatialimages import HeaderDataError

    if header["qform_code"] == 0 and header["sform_code"] == 0:
        _log.warning("%s: no orientation in the header; planes are guessed", path.name)
    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise InputError(f"{path.name}: {one_line(error)}; fix the qform") from error
    affine[:3] *= _unit(header)
    return affine
