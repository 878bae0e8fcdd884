"""NIfTI files whose header lies: sizes, types, spacing, slope, affines and units."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.helpers.odd_files.case import Family, Make, Refused, Restored
from tests.helpers.odd_files.images import AFFINE, finite, keeps, mri, save_nifti
from tests.helpers.odd_files.nifti_bytes import whole

FAMILY = Family("NIfTI header")

# Offsets of fields of NIfTI-1.
_SIZE, _DIM, _TYPE, _BITS, _SPACING, _OFFSET, _SLOPE = 0, 40, 70, 72, 80, 108, 112
_UNITS, _CODES, _QUATERN, _SROW, _MAGIC = 123, 252, 256, 280, 344

_same = Restored(keeps(mri()))


def patched(offset: int, kind: str, *values: float | bytes) -> Make:
    """Return a function that writes the MRI with some bytes of its header replaced."""

    def make(folder: Path) -> None:
        content = bytearray(whole(folder))
        struct.pack_into(f"<{kind}", content, offset, *values)
        (folder / "scan.nii.gz").write_bytes(gzip.compress(bytes(content)))

    return make


def _shape(*dim: int) -> Make:
    return patched(_DIM, "8h", *dim)


_nan, _inf = math.nan, math.inf
_no_spacing = Refused((3,), "spacing|pixdim")
FAMILY.add("spacing 0", patched(_SPACING, "f", 0.0), _no_spacing)
FAMILY.add("spacing NaN", patched(_SPACING, "f", _nan), _no_spacing)
FAMILY.add("spacing infinite", patched(_SPACING, "f", _inf), _no_spacing)
FAMILY.add("spacing negative", patched(_SPACING, "f", -1.0), _same, _no_spacing)
FAMILY.add(
    "spacing 1e9 against the sform",
    patched(_SPACING, "3f", 1e9, 1e9, 1e9),
    Refused((3, 4), "spacing|pixdim|1e.?0?9"),
    Restored(keeps(mri()), says="spacing|pixdim"),
)
FAMILY.add(
    "spacing of other slices than the sform",
    patched(_SPACING, "3f", 1.0, 1.0, 5.0),
    Restored(keeps(mri())),
    Refused((3,), "spacing|pixdim"),
)

_no_affine = Refused((3,), "[sq]form|singular|NaN|affine")
FAMILY.add("sform of zeros", patched(_SROW, "12f", *[0.0] * 12), _no_affine)
FAMILY.add("sform of NaN", patched(_SROW, "12f", *[_nan] * 12), _no_affine)
FAMILY.add("sform infinite", patched(_SROW, "12f", *[_inf] * 12), _no_affine)
FAMILY.add(
    "sform flat",
    patched(_SROW, "12f", 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0),
    _no_affine,
)
FAMILY.add("neither sform nor qform", patched(_CODES, "2h", 0, 0), Restored(finite))
FAMILY.add(
    "unknown codes of both forms",
    patched(_CODES, "2h", 99, 98),
    Restored(finite, "orientation"),
    _no_affine,
)
FAMILY.add(
    "impossible quaternion beside a good sform",
    patched(_QUATERN, "3f", 5.0, 5.0, 5.0),
    _same,
    Refused((3,), "qform|quatern"),
)


@FAMILY.case(Refused((3,), "qform|quatern|damaged|affine"))
def an_impossible_quaternion_alone(folder: Path) -> None:
    content = bytearray(whole(folder))
    struct.pack_into("<2h3f", content, _CODES, 1, 0, 5.0, 5.0, 5.0)
    (folder / "scan.nii.gz").write_bytes(gzip.compress(bytes(content)))


FAMILY.add("slope NaN", patched(_SLOPE, "2f", _nan, _nan), _same)
FAMILY.add("slope infinite", patched(_SLOPE, "2f", _inf, 0.0), Refused((3,), "slope"))
FAMILY.add("intercept infinite", patched(_SLOPE, "2f", 1.0, _inf), Refused((3,), "inter"))
FAMILY.add("intercept NaN", patched(_SLOPE, "2f", 1.0, _nan), Refused((3,), "inter"))
FAMILY.add("slope 0", patched(_SLOPE, "2f", 0.0, 5.0), _same)
FAMILY.add("slope 2, intercept 7", patched(_SLOPE, "2f", 2.0, 7.0), Restored(keeps(2 * mri() + 7)))
FAMILY.add("slope below 0", patched(_SLOPE, "2f", -1.0, 2000.0), Restored(keeps(2000 - mri())))
FAMILY.add(
    "slope 1e38",
    patched(_SLOPE, "2f", 1e38, 0.0),
    Refused((3, 4), "finite|overflow|large|cannot have|slope"),
)

FAMILY.add("an axis of length 0", _shape(3, 48, 40, 0, 1, 1, 1, 1), Refused((3,), "voxels|shape"))
FAMILY.add("an axis of length -40", _shape(3, 48, -40, 4, 1, 1, 1, 1), Refused((3,), "shape|dim"))
_no_dim = Refused((3,), "dim|axes|shape|damaged|NIfTI")
FAMILY.add("dim[0] = 9", patched(_DIM, "h", 9), _no_dim)
FAMILY.add("dim[0] = 0", patched(_DIM, "h", 0), _no_dim)
FAMILY.add("dim[0] = 1", patched(_DIM, "h", 1), _no_dim)
FAMILY.add("dim[0] = -3", patched(_DIM, "h", -3), _no_dim)
FAMILY.add(
    "dim[0] = 7 with axes of length 1",
    _shape(7, 48, 40, 4, 1, 1, 1, 1),
    Restored(keeps(mri()[..., None, None, None, None], None)),
)
FAMILY.add(
    "trailing axes of length 0 that dim[0] leaves out", _shape(3, 48, 40, 4, 0, 0, 0, 0), _same
)
FAMILY.add("unknown data type", patched(_TYPE, "2h", 999, 16), Refused((3,), "type|999|damaged"))
FAMILY.add("data type 0", patched(_TYPE, "2h", 0, 0), Refused((3,), "type|damaged|less than"))
FAMILY.add("binary data type", patched(_TYPE, "2h", 1, 1), Refused((3,), "type|damaged|binary"))
FAMILY.add(
    "float128 claimed",
    patched(_TYPE, "2h", 1536, 128),
    Refused((3,), "type|data code|less than|float128"),
)
FAMILY.add("wrong bits per voxel", patched(_BITS, "h", 64), _same, Refused((3,), "bitpix|bits"))
FAMILY.add("offset beyond the end", patched(_OFFSET, "f", 1e6), Refused((3,), "offset|less than"))
FAMILY.add("offset NaN", patched(_OFFSET, "f", _nan), Refused((3,), "offset"))
FAMILY.add("offset negative", patched(_OFFSET, "f", -64.0), Refused((3,), "offset|damaged|more"))
FAMILY.add("offset inside the header", patched(_OFFSET, "f", 64.0), Refused((3,), "offset|damaged"))
FAMILY.add("offset infinite", patched(_OFFSET, "f", _inf), Refused((3,), "offset"))
FAMILY.add("unknown magic", patched(_MAGIC, "4s", b"xxx\0"), Refused((3,), "magic|NIfTI|damaged"))
FAMILY.add(
    "magic of a pair",
    patched(_MAGIC, "4s", b"ni1\0"),
    _same,
    Refused((3,), "pair|magic|img|damaged"),
)
FAMILY.add("length of header 0", patched(_SIZE, "i", 0), Refused((3,), "NIfTI"))
FAMILY.add("unknown units", patched(_UNITS, "B", 255), _same, Refused((3,), "unit"))


def _metres(folder: Path) -> None:
    keeps(mri(), None)(folder)
    header = nib.load(folder / "out.nii.gz").header
    spacing = np.array(header.get_zooms()[:3]) * 1000
    assert header.get_xyzt_units()[0] == "meter"
    assert np.allclose(spacing, (1, 1, 3), rtol=1e-4), f"spacing {spacing} mm"


@FAMILY.case(Restored(_metres))
def millimetres_written_as_metres(folder: Path) -> None:
    affine = AFFINE.copy()
    affine[:3] /= 1000
    save_nifti(
        folder / "scan.nii.gz",
        mri().astype(np.int16),
        affine,
        lambda header: header.set_xyzt_units("meter", "sec"),
    )


def _scaled_voxels(factor: float) -> Make:
    affine = AFFINE.copy()
    affine[:3] *= factor
    return lambda folder: save_nifti(folder / "scan.nii.gz", mri().astype(np.int16), affine)


_no_scanner = Refused((3, 4), "mm|spacing")
FAMILY.add("voxels of 1e9 mm", _scaled_voxels(1e9), _no_scanner)
FAMILY.add("voxels of 1e-9 mm", _scaled_voxels(1e-9), _no_scanner)


@FAMILY.case(Restored(finite))
def an_oblique_sheared_affine(folder: Path) -> None:
    affine = AFFINE.copy()
    affine[:3, :3] += [[0, 0.1, 0], [0.1, 0, 0.3], [0, 0.05, 0]]
    save_nifti(folder / "scan.nii.gz", mri().astype(np.float32), affine)
