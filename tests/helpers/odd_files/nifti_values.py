"""NIfTI files whose values or axes are unusual, or are those of something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.helpers.odd_files.case import Family, Make, Refused, Restored
from tests.helpers.odd_files.images import AFFINE, Array, ct, finite, keeps, mri, pet, save_nifti

FAMILY = Family("NIfTI values")

_TIMES = np.stack([mri(), 2 * mri(), 3 * mri()], -1)


def _holds(data: Array) -> Make:
    return lambda folder: save_nifti(folder / "scan.nii.gz", data)


FAMILY.add(
    "three volumes",
    _holds(_TIMES.astype(np.int16)),
    Restored(keeps(_TIMES)),
    Refused((3,), "axes|volume"),
)
FAMILY.add(
    "one volume on four axes",
    _holds(mri().astype(np.int16)[..., None]),
    Restored(keeps(mri()[..., None])),
)
FAMILY.add(
    "vectors on five axes",
    _holds(np.stack([mri()] * 3, -1).astype(np.float32)[..., None, :]),
    Refused((3,), "axes|vector"),
)
FAMILY.add("complex", _holds((mri() + 1j).astype(np.complex64)), Refused((3,), "complex"))
_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
FAMILY.add("colours", _holds(np.zeros(mri().shape, _RGB)), Refused((3,), "colou?r|RGB"))


def _with(value: float, *where: object) -> Array:
    data = mri().astype(np.float32)
    data[where] = value
    return data


FAMILY.add(
    "NaN around the body",
    _holds(np.where(mri() < 5, np.nan, mri()).astype(np.float32)),
    Restored(keeps(np.where(mri() < 5, np.nan, mri()))),
)
FAMILY.add("NaN in two edges", _holds(_with(np.nan, 0, 0)), Restored(keeps(_with(np.nan, 0, 0))))
FAMILY.add(
    "NaN around the body, to be kept",
    _holds(np.where(mri() < 5, np.nan, mri()).astype(np.float32)),
    Restored(keeps(np.where(mri() < 5, np.nan, mri()), nan_kept=True)),
    words="restore scan.nii.gz -o out.nii.gz -t mri-sr --keep-nan",
)
_not_finite = Refused((3,), "finite|NaN|infin")
FAMILY.add("NaN inside", _holds(_with(np.nan, 24, 20, 2)), _not_finite)
FAMILY.add("infinity inside", _holds(_with(np.inf, 24, 20, 2)), _not_finite)
FAMILY.add("infinity at the edge", _holds(_with(-np.inf, 0, 0, 0)), _not_finite)
FAMILY.add("NaN everywhere", _holds(np.full(mri().shape, np.nan, np.float32)), _not_finite)
FAMILY.add(
    "NaN in a whole slice",
    _holds(_with(np.nan, ..., 1)),
    Restored(says="NaN"),
    Refused((3, 4), "finite|NaN|slice"),
)

FAMILY.add("int64", _holds(mri().astype(np.int64)), Restored(keeps(mri())))
FAMILY.add("float64", _holds(mri()), Restored(keeps(mri())))
FAMILY.add("int8", _holds((mri() // 10).astype(np.int8)), Restored(keeps(mri() // 10)))
FAMILY.add("uint16", _holds(mri().astype(np.uint16)), Restored(keeps(mri())))
FAMILY.add(
    "uint64 up to 1e18",
    _holds(mri().astype(np.uint64) * np.uint64(10**15)),
    Restored(keeps(mri() * 1e15)),
    Refused((3, 4), "large|cannot have|overflow"),
)
_too_large = Refused((3, 4), "finite|overflow|large|cannot have")
FAMILY.add("float64 up to 1e300", _holds(mri() * 1e297), _too_large)
FAMILY.add(
    "float32 up to 1e38",
    _holds((mri() * 1e35).astype(np.float32)),
    Restored(keeps(mri() * 1e35)),
    _too_large,
)
FAMILY.add(
    "float32 down to 1e-38",
    _holds((mri() * 1e-41).astype(np.float32)),
    Restored(keeps(mri() * 1e-41, close=1e-2)),
    Refused((3, 4), "small|constant|nothing|range|scale"),
)
FAMILY.add(
    "negative values of MRI", _holds((mri() - 600).astype(np.int16)), Restored(keeps(mri() - 600))
)

_nothing = Refused((4,), "all values|nothing|constant|zero|empty|content")
FAMILY.add("zeros", _holds(np.zeros(mri().shape, np.int16)), _nothing)
FAMILY.add("sevens", _holds(np.full(mri().shape, 7, np.int16)), _nothing)


@FAMILY.case(_nothing)
def one_bright_voxel(folder: Path) -> None:
    data = np.zeros((64, 64, 8), np.int16)
    data[30, 30, 4] = 1000
    save_nifti(folder / "scan.nii.gz", data)


FAMILY.add(
    "labels", _holds((mri() // 300).astype(np.uint8)), Refused((4,), "label|segmentation|mask")
)
FAMILY.add("a mask", _holds((mri() > 300).astype(np.int8)), Refused((4,), "label|mask"))
FAMILY.add(
    "a mask in float32", _holds((mri() > 300).astype(np.float32)), Refused((4,), "label|mask")
)

FAMILY.add("one slice", _holds(mri()[..., :1].astype(np.int16)), Restored(keeps(mri()[..., :1])))
FAMILY.add("two axes", _holds(mri()[..., 0].astype(np.int16)), Restored(keeps(mri()[..., 0])))
_too_small = Refused((3, 4), "small|at least|pixels")
FAMILY.add("a line of voxels", _holds(mri()[20:21, :, :1].astype(np.int16)), _too_small)
FAMILY.add("a plane of one row", _holds(mri()[20:21].astype(np.int16)), _too_small)
FAMILY.add("3 x 3 x 3", _holds(mri()[20:23, 18:21, :3].astype(np.int16)), _too_small)
FAMILY.add("9 x 7 pixels", _holds(mri((9, 7, 4)).astype(np.int16)), Restored(finite), _too_small)

_AS_CT = "restore scan.nii.gz -o out.nii.gz -t ct-denoise"
_AS_PET = "restore scan.nii.gz -o out.nii.gz -t pet-synth"
_AS_MRI = "restore scan.nii.gz -o out.nii.gz -t mri-sr"
FAMILY.add("CT", _holds(ct().astype(np.int16)), Restored(keeps(ct())), words=_AS_CT)
FAMILY.add("PET", _holds(pet().astype(np.float32)), Restored(keeps(pet())), words=_AS_PET)
FAMILY.add(
    "MRI given as CT",
    _holds(mri().astype(np.int16)),
    Refused((3, 4), "HU|air|CT"),
    words=_AS_CT,
)
FAMILY.add(
    "CT given as PET",
    _holds(ct((48, 40, 12)).astype(np.int16)),
    Refused((3, 4), "negative|below 0|PET|cannot have"),
    words=_AS_PET,
)
FAMILY.add(
    "CT with an offset of 1024",
    _holds((ct() + 1024).astype(np.int16)),
    Refused((3, 4), "HU|air|CT|intercept"),
    words=_AS_CT,
)
FAMILY.add(
    "CT given as MRI",
    _holds(ct().astype(np.int16)),
    Refused((3, 4), "negative|below 0|HU|CT"),
    Restored(says="negative|below 0|HU|CT"),
    words=_AS_MRI,
)


@FAMILY.case(Refused((4,), "restored"), words=_AS_MRI)
def restored_before(folder: Path) -> None:
    save_nifti(folder / "scan.nii.gz", mri().astype(np.float32))
    (folder / "scan.restoration.json").write_text(
        '{"format": "restore-rwkv record 1", "task": "mri-sr", "modality": "MR", "source": "a.nii"}'
    )


FAMILY.add(
    "restored twice by the program",
    _holds(mri().astype(np.int16)),
    Refused((4,), "restored"),
    words=(
        "restore scan.nii.gz -o once.nii.gz -t mri-sr",
        "restore once.nii.gz -o out.nii.gz -t mri-sr",
    ),
)
FAMILY.add(
    "restored with the task named, then again with auto",
    _holds(mri().astype(np.int16)),
    Refused((4,), "restored"),
    words=(
        "restore scan.nii.gz -o once.nii.gz -t mri-sr",
        "restore once.nii.gz -o out.nii.gz",
    ),
)


@FAMILY.case(Refused((4,), "restored|deep|AI|denois"), Restored(says="restored|deep|AI|denois"))
def a_sidecar_that_says_deep_learning(folder: Path) -> None:
    save_nifti(folder / "scan.nii.gz", mri().astype(np.int16))
    (folder / "scan.json").write_text('{"Modality": "MR", "DeepLearning": true}')


FAMILY.add(
    "slices along the first axis",
    lambda f: save_nifti(
        f / "scan.nii.gz", mri().transpose(2, 0, 1).astype(np.int16), AFFINE[:, [2, 0, 1, 3]]
    ),
    Restored(keeps(mri().transpose(2, 0, 1), AFFINE[:, [2, 0, 1, 3]])),
)
