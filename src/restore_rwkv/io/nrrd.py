"""NRRD: one file (.nrrd), or a header (.nhdr) that names the file of the voxels beside it.

The header is checked before any voxel is read, and the file that it names is opened only in the
folder of the header; so the format is read here, and not by a library that reads both at once.
"""

from __future__ import annotations

import gzip
import logging
import re
from pathlib import Path
from typing import Literal

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.affines import LPS_TO_RAS, affine_of_columns, columns_in_lps
from restore_rwkv.io.stored import Float32Array, Float64Array, encode, written_type
from restore_rwkv.io.volume import Volume, three_axes
from restore_rwkv.io.voxels import Packed, Packing, file_beside, header_lines, packed_volume

_log = logging.getLogger(__name__)
_TYPES = {
    "i1": ("int8", "signed char", "int8_t"),
    "u1": ("uint8", "uchar", "unsigned char", "uint8_t"),
    "i2": ("int16", "short", "short int", "signed short", "signed short int", "int16_t"),
    "u2": ("uint16", "ushort", "unsigned short", "unsigned short int", "uint16_t"),
    "i4": ("int32", "int", "signed int", "int32_t"),
    "u4": ("uint32", "uint", "unsigned int", "uint32_t"),
    "i8": ("int64", "longlong", "long long", "long long int", "signed long long", "int64_t"),
    "u8": ("uint64", "ulonglong", "unsigned long long", "unsigned long long int", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPE_OF_NAME = {name: kind for kind, names in _TYPES.items() for name in names}
_PACKINGS: dict[str, Packing] = {
    **dict.fromkeys(("raw",), "raw"),
    **dict.fromkeys(("txt", "text", "ascii"), "text"),
    **dict.fromkeys(("gz", "gzip"), "gzip"),
    **dict.fromkeys(("bz2", "bzip2"), "bzip2"),
}
_SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras"), np.eye(4)),
    **dict.fromkeys(("left-anterior-superior", "las"), np.diag([-1.0, 1.0, 1.0, 1.0])),
    **dict.fromkeys(("left-posterior-superior", "lps"), LPS_TO_RAS),
}
_KINDS = ("domain", "space", "none", "???")
_UNITS = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001}
_VECTOR = re.compile(r"none|\([^()]*\)")


def read_nrrd(path: Path) -> Volume:
    """Read a NRRD image of one real number for each voxel, in two or three dimensions.

    It needs an anatomical space (right-, left-anterior-superior or left-posterior-superior) and the
    direction of each axis; one without any space has no geometry. Key/value pairs are ignored.

    Raises:
        InputError: The header is damaged, or has vectors, colours, a list of volumes, another space
            or packing; it names a file outside its folder; or the voxels are damaged or truncated.
    """
    fields, end = _fields_of(path)
    shape = _shape(fields, path)
    packed = _packed(fields, shape, path, end)
    affine = _affine(fields, len(shape), path)
    return packed_volume(packed, path, (shape, three_axes(shape, path.name)), affine)


def write_nrrd(
    volume: Volume, data: Float32Array, path: Path, dtype: Literal["float32", "source"]
) -> None:
    """Write a volume with an affine as one compressed NRRD file, in left-posterior-superior.

    Args:
        volume: Its geometry, and its source for the type.
        data: Values to write, (X, Y, Z).
        path: Where to write.
        dtype: "float32", or "source" for the type of the volume's source.
    """
    stored = written_type(volume.source.stored if volume.source else None, dtype, "<")
    columns, origin = columns_in_lps(np.asarray(volume.affine))
    header = [
        "NRRD0004",
        f"type: {_TYPES[stored.dtype.str[1:]][0]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, data.shape))}",
        f"space directions: {' '.join(map(_vector, columns.T))}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(origin)}",
    ]
    with path.open("wb") as file:
        file.write("\n".join([*header, "", ""]).encode("ascii"))
        # Without name and time, so that equal images give equal files.
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
            for k in range(data.shape[2]):  # no copy of the whole volume
                stream.write(encode(data[..., k : k + 1], stored).tobytes(order="F"))


def holds_type(dtype: np.dtype[np.generic]) -> bool:
    """Whether NRRD has this type of numbers."""
    return dtype.str[1:] in _TYPES


def _vector(numbers: Float64Array) -> str:
    return f"({','.join(repr(float(x)) for x in numbers)})"  # repr is exact


def _fields_of(path: Path) -> tuple[dict[str, str], int]:
    lines, end = header_lines(path, None)
    if not lines or not lines[0].startswith("NRRD000"):
        raise InputError(f"{path.name}: not a NRRD file; export it again")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, found, value = line.partition(":")
        if line.startswith("#") or value.startswith("="):
            continue
        name = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}.get(
            name.strip().lower(), name.strip().lower()
        )
        if not found or name in fields:
            raise InputError(f"{path.name}: the header is damaged (line {line[:40]!r})")
        fields[name] = value.strip()
    return fields, end


def _shape(fields: dict[str, str], path: Path) -> tuple[int, ...]:
    """Return the lengths of the axes, all of which are in space."""
    axes = _integer(fields, "dimension", path)
    kinds = fields.get("kinds", "").lower().split() or ["domain"] * axes
    for axis, kind in enumerate(kinds):
        if kind not in _KINDS:
            raise InputError(
                f"{path.name}: axis {axis} is of kind {kind[:40]!r}, not a direction in space; "
                "save one real value for each voxel, one file for each volume"
            )
    sizes = fields.get("sizes", "").split()
    if len(sizes) != axes or len(kinds) != axes or not all(size.isdecimal() for size in sizes):
        raise InputError(f"{path.name}: the header is damaged (dimension, sizes, kinds)")
    shape = tuple(map(int, sizes))
    three_axes(shape, path.name)
    return shape


def _integer(fields: dict[str, str], name: str, path: Path, default: str = "") -> int:
    value = fields.get(name, default)
    if not re.fullmatch(r"-?\d{1,18}", value):
        raise InputError(f"{path.name}: the header is damaged ({name} is {value[:40]!r})")
    return int(value)


def _packed(fields: dict[str, str], shape: tuple[int, ...], path: Path, end: int) -> Packed:
    value, encoding = fields.get("type", "").lower(), fields.get("encoding", "").lower()
    kind, packing = _TYPE_OF_NAME.get(value), _PACKINGS.get(encoding)
    if kind is None:
        raise InputError(
            f"{path.name}: voxels of type {value[:40]!r} are not supported; save real numbers"
        )
    if packing is None:
        raise InputError(
            f"{path.name}: encoding {encoding[:40]!r} is not supported; save raw or gzip"
        )
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower(), "")
    if not order and kind[1] != "1" and packing != "text":
        raise InputError(f"{path.name}: the header does not say endian; export it again")
    name = fields.get("data file")
    if name is not None and (name.upper().startswith("LIST") or "%" in name):
        raise InputError(f"{path.name}: its voxels are in several files; save them in one")
    voxels = path if name is None else file_beside(path, name)
    skipped, lines = (_integer(fields, f"{what} skip", path, "0") for what in ("byte", "line"))
    if skipped < (-1 if packing == "raw" else 0) or lines < 0:
        raise InputError(f"{path.name}: the header is damaged (byte skip, line skip)")
    start = end if name is None else 0
    if skipped == -1:
        start, skipped = -1, 0
    return Packed(voxels, start, np.dtype(order + kind), shape, packing, skipped, lines)


def _affine(fields: dict[str, str], axes: int, path: Path) -> Float64Array | None:
    """Affine by space, directions and origin; None for an image outside any space."""
    space = fields.get("space", "").lower()
    if (not space and "space dimension" not in fields) or axes == 2:
        _log.warning("%s: no position in space; read without geometry", path.name)
        return None
    if space not in _SPACES:
        raise InputError(
            f"{path.name}: its space {space[:40]!r} does not say where left "
            "and right are; save it in left-posterior-superior"
        )
    unit = _unit(fields, path)
    steps = [_numbers(text) for text in _VECTOR.findall(fields.get("space directions", ""))]
    origin = _numbers(fields.get("space origin", ""))
    if len(steps) != axes or any(len(step) != 3 for step in steps) or len(origin) != 3:
        raise InputError(f"{path.name}: space directions or space origin is missing or damaged")
    columns = unit * np.array(steps).T
    return affine_of_columns(columns, unit * np.array(origin), _SPACES[space])


def _numbers(text: str) -> list[float]:
    """Return the numbers of "(x,y,z)", none if it is something else."""
    try:
        return [float(part) for part in text.strip().removeprefix("(").removesuffix(")").split(",")]
    except ValueError:
        return []


def _unit(fields: dict[str, str], path: Path) -> float:
    """Millimetres of the unit of space."""
    text = fields.get("space units", "")
    names = set(text.replace('"', " ").split()) - {"???"}
    if not names:
        return 1.0
    unit = _UNITS.get(names.pop().lower())
    if names or unit is None:
        raise InputError(f"{path.name}: space units {text[:40]!r} are not supported; save it in mm")
    return unit
