"""NIfTI-1 and NIfTI-2 single files (.nii, .nii.gz)."""

from __future__ import annotations

import gzip
import logging
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, cast

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError
from restore_rwkv.io.sidecar import read_sidecar
from restore_rwkv.io.stored import Float32Array, Float64Array, Stored, encode
from restore_rwkv.io.volume import Source, Volume, one_line, three_axes

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

_log = logging.getLogger(__name__)
_LONGEST_HEADER = 540  # of NIfTI-2
_NO_EXTENSIONS = bytes(4)
_CHUNK = 1 << 24
_ERROR_LEVEL = 40  # nibabel's severity from which a header cannot be interpreted
_MILLIMETRES = {1: 1000.0, 3: 0.001}  # NIfTI unit codes metre and micrometre


@dataclass(frozen=True, eq=False)
class NiftiSource(Source):
    """A NIfTI file with its header exactly as read.

    Attributes:
        header: The fixed fields as read, not repaired (copy before changing any).
        extensions: The bytes between the header and the voxels: extension flag and extensions.
        affine: (4, 4), affine of the header in mm, RAS+.
    """

    header: Nifti1Header
    extensions: bytes
    affine: Float64Array


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file whose voxels are real numbers in two or three dimensions.

    Axes of length 1 after the third are dropped from the data and restored by the writer.
    The format has neither modality nor unit; a JSON file beside it may (see ``read_sidecar``).

    Raises:
        InputError: The file is damaged or truncated, is larger than its header says, has a time
            axis, colours or complex numbers, a spacing of 0, or an unusable affine.
    """
    payload, raw, header = _read_payload(path)
    offset = _data_offset(header)
    shape = tuple(int(length) for length in header.get_data_shape())
    slope, inter = header.get_slope_inter()
    stored = Stored(
        header.get_data_dtype(), 1.0 if slope is None else slope, 0.0 if inter is None else inter
    )
    numbers = np.frombuffer(payload, stored.dtype, offset=offset)
    numbers = numbers.reshape(three_axes(shape, path.name), order="F")
    extensions = bytes(payload[len(raw.binaryblock) : offset])
    affine = _affine_in_mm(header, path)
    beside = read_sidecar(path)
    source = NiftiSource(*(path, shape, stored, raw, extensions, affine), findings=beside.findings)
    return Volume(_scaled(numbers, stored), affine, beside.unit, beside.modality, source)


def write_nifti(volume: Volume, path: Path, dtype: Literal["float32", "source"]) -> None:
    """Write a volume with an affine as NIfTI.

    A volume read from NIfTI keeps its header; only data type, scaling, display range and data
    offset change, and for another grid along the same axes its size, spacing and both affines.
    Other volumes get a NIfTI-1 header with qform and sform code 1 (scanner) in mm.

    Args:
        volume: The image, with an affine.
        path: Where to write; compressed if it ends in .gz.
        dtype: "float32", or "source" for the type and scaling of the volume's source.
    """
    stored = Stored(np.dtype(np.float32))
    if dtype == "source" and volume.source is not None and volume.source.stored is not None:
        stored = volume.source.stored
    header, extensions = _header_for(volume)
    header.set_data_dtype(stored.dtype)
    header["scl_slope"], header["scl_inter"] = stored.slope, stored.inter
    header["cal_min"] = header["cal_max"] = 0
    header["vox_offset"] = len(header.binaryblock) + len(extensions)
    stored = Stored(header.get_data_dtype(), stored.slope, stored.inter)
    with path.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # Without name and time, so that equal images give equal files.
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
                _write_stream(stream, header.binaryblock + extensions, volume.data, stored)
        else:
            _write_stream(file, header.binaryblock + extensions, volume.data, stored)


def _write_stream(
    stream: IO[bytes] | gzip.GzipFile, head: bytes, data: Float32Array, stored: Stored
) -> None:
    stream.write(head)
    for k in range(data.shape[-1]):  # no copy of the whole volume
        stream.write(encode(data[..., k : k + 1], stored).tobytes(order="F"))


def _header_for(volume: Volume) -> tuple[Nifti1Header, bytes]:
    from nibabel.nifti1 import Nifti1Header

    source, affine = volume.source, np.asarray(volume.affine)
    if isinstance(source, NiftiSource):
        header: Nifti1Header = source.header.copy()
        if np.array_equal(source.affine, affine) and _grid_of(header) == volume.data.shape:
            return header, source.extensions
        indices = np.linalg.solve(source.affine, affine)  # of the file's voxels, by ours
        if np.allclose(indices[:3, :3], np.diag(np.diag(indices)[:3]), rtol=0, atol=1e-6):
            _move_grid(header, indices, volume.data.shape)
            return header, source.extensions
    header = Nifti1Header()
    header.set_data_shape(volume.data.shape)
    header.set_qform(volume.affine, code=1)
    header.set_sform(volume.affine, code=1)
    header.set_xyzt_units(xyz="mm")
    return header, _NO_EXTENSIONS


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


def _scaled(numbers: npt.NDArray[np.generic], stored: Stored) -> Float32Array:
    """Apply slope and intercept in float64, slice by slice to save memory."""
    if (stored.slope, stored.inter) == (1.0, 0.0):
        return cast(Float32Array, numbers)  # Volume converts
    out = np.empty(numbers.shape, np.float32, order="F")
    with np.errstate(over="ignore"):
        for k in range(numbers.shape[-1]):
            out[..., k] = numbers[..., k].astype(np.float64) * stored.slope + stored.inter
    return out


def _affine_in_mm(header: Nifti1Header, path: Path) -> Float64Array:
    from nibabel.spatialimages import HeaderDataError

    if header["qform_code"] == 0 and header["sform_code"] == 0:
        _log.warning("%s: no orientation in the header; planes are guessed", path.name)
    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise InputError(f"{path.name}: {one_line(error)}; fix the qform") from error
    affine[:3] *= _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def _read_payload(path: Path) -> tuple[bytearray, Nifti1Header, Nifti1Header]:
    """Return the uncompressed file, its header as read, and the repaired header."""
    compressed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            # Header first: a small gzip file can expand to any size.
            payload = bytearray(stream.read(_LONGEST_HEADER))
            raw = _parse_header(payload, path)
            header = _interpreted(raw, path)
            expected = _expected_size(header, path)
            while len(payload) <= expected:
                chunk = stream.read(min(_CHUNK, expected + 1 - len(payload)))
                if not chunk:
                    break
                payload += chunk
    except gzip.BadGzipFile as error:
        raise InputError(
            f"{path.name}: not a sound gzip file ({one_line(error)}); copy it again"
        ) from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path.name}: the gzip data is truncated; copy it again") from error
    if len(payload) != expected:
        amount = "less" if len(payload) < expected else "more"
        raise InputError(
            f"{path.name}: holds {amount} than the {expected} bytes that its header gives; "
            "the file is truncated or damaged, copy or export it again"
        )
    return payload, raw, header


def _expected_size(header: Nifti1Header, path: Path) -> int:
    """Size of the uncompressed file by its header, in bytes."""
    from nibabel.spatialimages import HeaderDataError

    shape = tuple(int(length) for length in header.get_data_shape())
    three_axes(shape, path.name)
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        kind = "colour" if dtype.kind == "V" else "complex"
        raise InputError(
            f"{path.name}: {kind} voxels are not supported; save one real value for each voxel"
        )
    try:
        header.get_slope_inter()
    except HeaderDataError as error:
        raise InputError(f"{path.name}: {one_line(error)}; fix scl_slope and scl_inter") from error
    count = 1
    for length in shape:
        count *= length  # Python integers: no overflow
    return _data_offset(header) + count * int(dtype.itemsize)


def _data_offset(header: Nifti1Header) -> int:
    return int(header["vox_offset"]) or int(header.single_vox_offset)  # 0 means the smallest offset


def _parse_header(data: bytearray, path: Path) -> Nifti1Header:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    kinds: dict[int, Callable[..., Nifti1Header]] = {348: Nifti1Header, 540: Nifti2Header}
    for byte_order in ("<", ">"):
        size = struct.unpack(byte_order + "i", data[:4])[0] if len(data) >= 4 else 0
        if size in kinds and len(data) >= size:
            return kinds[size](bytes(data[:size]), byte_order, check=False)
    raise InputError(f"{path.name}: not a NIfTI file; give a .nii or .nii.gz image")


def _interpreted(header: Nifti1Header, path: Path) -> Nifti1Header:
    """Return a copy with the usual small repairs (qfac 0 is 1, ...)."""
    from nibabel.spatialimages import HeaderDataError

    spacing = header["pixdim"][1 : 1 + min(3, int(header["dim"][0]))]
    for axis, length in enumerate(spacing.tolist()):
        if length == 0 or not np.isfinite(length):
            raise InputError(f"{path.name}: spacing is {length:g} mm on axis {axis}; fix pixdim")
    if not np.isfinite(header["vox_offset"]):
        raise InputError(f"{path.name}: the header is damaged (vox_offset is not finite)")
    copy: Nifti1Header = header.copy()
    try:
        copy.check_fix(_log, _ERROR_LEVEL)
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise InputError(f"{path.name}: the header is damaged ({one_line(error)})") from error
    return copy
