"""MetaImage: one file (.mha), or a header (.mhd) that names the file of the voxels beside it.

The header is checked before any voxel is read, and the file that it names is opened only in the
folder of the header; so the format is read here, and not by a library that reads both at once.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Literal

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.affines import affine_of_columns, columns_in_lps
from restore_rwkv.io.stored import Float32Array, Float64Array, encode, written_type
from restore_rwkv.io.volume import Volume, three_axes
from restore_rwkv.io.voxels import Packed, Packing, file_beside, header_lines, packed_volume

_log = logging.getLogger(__name__)
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # four bytes in MetaIO, on every system
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_NAME_OF_TYPE = {kind: name for name, kind in reversed(_TYPES.items())}
_DATA = "ElementDataFile"
_SEVERAL = re.compile(r"LIST\b|.*%\d*d")
_FALSE = ("false", "0", "f", "n", "no")


def read_metaimage(path: Path) -> Volume:
    """Read a MetaImage of one real number for each voxel, in two or three dimensions.

    Positions are in LPS and mm, as ITK takes them; a two-dimensional image has no geometry.

    Raises:
        InputError: The header is damaged, or has vectors, colours, a list of volumes or a scaling;
            it names a file outside its folder; or the voxels are damaged or truncated.
    """
    fields, end = _fields_of(path)
    shape = tuple(_integers(fields, "DimSize", path))
    if len(shape) != _integers(fields, "NDims", path)[0]:
        raise InputError(f"{path.name}: the header is damaged (NDims, DimSize)")
    grid = three_axes(shape, path.name)
    _check_values(fields, path)
    packed = _packed(fields, shape, path, end)
    affine = _affine(fields, path) if len(shape) == 3 else None
    return packed_volume(packed, path, (shape, grid), affine)


def write_metaimage(
    volume: Volume, data: Float32Array, path: Path, dtype: Literal["float32", "source"]
) -> None:
    """Write a volume with an affine as one MetaImage file, not compressed.

    Args:
        volume: Its geometry, and its source for the type.
        data: Values to write, (X, Y, Z).
        path: Where to write.
        dtype: "float32", or "source" for the type of the volume's source.
    """
    stored = written_type(volume.source.stored if volume.source else None, dtype, "<")
    columns, origin = columns_in_lps(np.asarray(volume.affine))
    spacing = np.linalg.norm(columns, axis=0)
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": _words((columns / spacing).T.ravel()),
        "Offset": _words(origin),
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": "RAI",
        "ElementSpacing": _words(spacing),
        "DimSize": " ".join(map(str, data.shape)),
        "ElementType": _NAME_OF_TYPE[stored.dtype.str[1:]],
        _DATA: "LOCAL",
    }
    with path.open("wb") as file:
        lines = (f"{name} = {value}\n" for name, value in header.items())
        file.write("".join(lines).encode("ascii"))
        for k in range(data.shape[2]):  # no copy of the whole volume
            file.write(encode(data[..., k : k + 1], stored).tobytes(order="F"))


def holds_type(dtype: np.dtype[np.generic]) -> bool:
    """Whether MetaImage has this type of numbers."""
    return dtype.str[1:] in _NAME_OF_TYPE


def _words(numbers: Float64Array) -> str:
    return " ".join(repr(float(x)) for x in numbers)  # repr is exact


def _fields_of(path: Path) -> tuple[dict[str, str], int]:
    lines, end = header_lines(path, _DATA)
    fields: dict[str, str] = {}
    for line in lines:
        name, found, value = (part.strip() for part in line.partition("="))
        if (not found and line.strip()) or name in fields:
            raise InputError(f"{path.name}: the header is damaged (line {line[:40]!r})")
        fields[name] = value
    if _DATA not in fields:
        raise InputError(f"{path.name}: the header is damaged ({_DATA} is missing)")
    if fields.get("ObjectType", "Image") != "Image":
        raise InputError(f"{path.name}: holds {fields['ObjectType'][:40]!r}; give an image")
    return fields, end


def _check_values(fields: dict[str, str], path: Path) -> None:
    """Refuse headers whose voxels are not plain values in mm."""
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise InputError(
            f"{path.name}: has {fields['ElementNumberOfChannels'][:40]!r} channels; save one real "
            "value for each voxel"
        )
    for name, plain in (
        ("ElementToIntensityFunctionSlope", 1.0),
        ("ElementToIntensityFunctionOffset", 0.0),
    ):
        if name in fields and _floats(fields, name, path, 1) != [plain]:
            raise InputError(f"{path.name}: {name} is not supported; save the values themselves")
    if fields.get("DistanceUnits", "mm") not in ("mm", "?"):
        raise InputError(f"{path.name}: DistanceUnits are not supported; save it in mm")


def _packed(fields: dict[str, str], shape: tuple[int, ...], path: Path, end: int) -> Packed:
    name = fields.get("ElementType", "")
    kind = _TYPES.get(name)
    if kind is None:
        raise InputError(
            f"{path.name}: voxels of type {name[:40]!r} are not supported; save real numbers"
        )
    packing: Packing = "raw"
    if _is_true(fields, "CompressedData", "False"):
        packing = "zlib"
    elif not _is_true(fields, "BinaryData", "True"):
        packing = "text"
    big = any(
        _is_true(fields, name, "False")
        for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    )
    name = fields[_DATA]
    if _SEVERAL.match(name):
        raise InputError(f"{path.name}: its voxels are in several files; save them in one")
    local = name.upper() == "LOCAL"
    start = end if local else _integers(fields, "HeaderSize", path, "0")[0]
    if start < -1 or (packing != "raw" and start < 0):
        raise InputError(f"{path.name}: the header is damaged (HeaderSize is {start})")
    voxels = path if local else file_beside(path, name)
    return Packed(voxels, start, np.dtype((">" if big else "<") + kind), shape, packing)


def _is_true(fields: dict[str, str], name: str, default: str) -> bool:
    return fields.get(name, default).lower() not in _FALSE


def _affine(fields: dict[str, str], path: Path) -> Float64Array:
    matrix = _first_of(fields, "TransformMatrix", "Rotation", "Orientation")
    offset = _first_of(fields, "Offset", "Origin", "Position")
    spacing = _first_of(fields, "ElementSpacing", "ElementSize")
    if spacing is None:
        raise InputError(f"{path.name}: ElementSpacing is missing; export it again")
    if matrix is None:
        _log.warning("%s: no orientation in the header; planes are guessed", path.name)
    rows = np.eye(3) if matrix is None else np.reshape(_floats(fields, matrix, path, 9), (3, 3))
    origin = [0.0] * 3 if offset is None else _floats(fields, offset, path, 3)
    # A row of the matrix is the direction of one axis of the array.
    return affine_of_columns(rows.T * _floats(fields, spacing, path, 3), origin)


def _first_of(fields: dict[str, str], *names: str) -> str | None:
    return next((name for name in names if name in fields), None)


def _floats(fields: dict[str, str], name: str, path: Path, count: int) -> list[float]:
    try:
        numbers = [float(word) for word in fields[name].split()]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise InputError(f"{path.name}: the header is damaged ({name} is {fields[name][:40]!r})")
    return numbers


def _integers(fields: dict[str, str], name: str, path: Path, default: str = "") -> list[int]:
    words = fields.get(name, default).split()
    if not words or not all(re.fullmatch(r"-?\d{1,18}", word) for word in words):
        raise InputError(f"{path.name}: {name} is missing or damaged; export it again")
    return [int(word) for word in words]
