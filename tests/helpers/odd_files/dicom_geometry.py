"""DICOM series whose positions, orientations or spacings are odd."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.helpers.odd_files.case import FOLDER, Family, Refused, Restored
from tests.helpers.odd_files.images import finite, keeps
from tests.helpers.odd_files.series import (
    COUNT,
    CT,
    MR,
    ORIGIN,
    SPACING,
    Edit,
    affine,
    enhanced,
    only,
    series,
    setting,
    without,
    write,
)

FAMILY = Family("DICOM geometry", "restore {source} -o out.nii.gz -t ct-denoise")


def _add(name: str, edit: Edit, *right: Restored | Refused) -> None:
    FAMILY.add(name, lambda folder: series(folder / "series", edit), *right, source="series")


def _placed(*steps: float, decimals: int = 9) -> Edit:
    """Return an edit that sets positions, ``steps`` apart and rounded."""

    def edit(d: Dataset, k: int) -> None:
        where = np.array(ORIGIN) + k * np.array(steps)
        d.ImagePositionPatient = [round(float(x), decimals) for x in where]

    return edit


for _step in (0.625, 1.25, 3.27):
    _add(
        f"positions to 0.1 mm, {_step} mm apart",
        _placed(0, 0, _step, decimals=1),
        # The end of the stack is known to 0.1 mm, so each step to 0.02 mm.
        Restored(lambda f, s=_step: keeps(CT, None)(f) or _close(f, (0, 0, s), 0.03)),
    )


def _close(folder: Path, step: tuple[float, float, float], bound: float) -> None:
    import nibabel as nib

    got = nib.load(folder / "out.nii.gz").affine[:3, 2]
    off = float(np.abs(got - affine(step)[:3, 2]).max())
    assert off < bound, f"the step between slices is {got} mm"


_tilted = Refused((3,), "tilt")
_add("gantry tilt of 11 degrees", _placed(0, 0.6, 3), _tilted)
_add("gantry tilt of 30 degrees", _placed(0, -1.732, 3), _tilted)


def _tilt_kept(folder: Path) -> None:
    found = {}
    for file in (folder / "out").glob("*.dcm"):
        d = dcmread(file)
        found[round(float(d.ImagePositionPatient[2]), 3)] = d
    assert len(found) == COUNT, f"{len(found)} slices"
    for k in range(COUNT):
        d = found[round(ORIGIN[2] + 3 * k, 3)]
        off = abs(float(d.ImagePositionPatient[1]) - ORIGIN[1] - 0.6 * k)
        assert off < 1e-6, f"slice {k} moved by {off:g} mm"
        values = d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept)
        worst = float(np.abs(values.T - CT[..., k]).max())
        assert worst < 1, f"values differ by up to {worst:g}"


FAMILY.add(
    "gantry tilt of 11 degrees, to DICOM",
    lambda folder: series(folder / "series", _placed(0, 0.6, 3)),
    Restored(_tilt_kept),
    words="restore series -o out/ -t ct-denoise",
    outputs=FOLDER,
)
_add(
    "slices from the head down",
    _placed(0, 0, -3),
    Restored(
        keeps(CT[..., ::-1], affine((0, 0, 3), (ORIGIN[0], ORIGIN[1], ORIGIN[2] - 3 * (COUNT - 1))))
    ),
)


def _unequal(d: Dataset, k: int) -> None:
    d.ImagePositionPatient = [*ORIGIN[:2], 3.0 * k + (0.7 if k > 3 else 0)]


_add("unequal steps", _unequal, Refused((3,), "spacing|varies|steps|regular"))
_add("all slices at one place", _placed(0, 0, 0), Refused((3,), "same position"))
_add("slices that move sideways only", _placed(3, 0, 0), Refused((3,), "position|tilt"))
_add("positions 1e9 mm apart", _placed(0, 0, 1e9), Refused((3, 4), "mm|spacing|position"))
_position = Refused((3,), "ImagePositionPatient")
_add("no positions", without("ImagePositionPatient"), _position)
_add("no position of one slice", only(3, without("ImagePositionPatient")), _position)
_add("two numbers of position", setting(ImagePositionPatient=[0, 1]), _position)
_spacing = Refused((3,), "PixelSpacing|pixel spacing")
_add("no pixel spacing", without("PixelSpacing"), _spacing)
_add("pixel spacing 0", setting(PixelSpacing=[0, 0]), _spacing)
_add("pixel spacing below 0", setting(PixelSpacing=[-1, -1]), _spacing)
_add("pixel spacing 1e9", setting(PixelSpacing=[1e9, 1e9]), Refused((3, 4), "mm|spacing"))
_add("another pixel spacing of one slice", only(2, setting(PixelSpacing=[2, 2])), _spacing)
_direction = Refused((3,), "orientation|ImageOrientationPatient")
_add("no orientation", without("ImageOrientationPatient"), _direction)
_add("orientation of zeros", setting(ImageOrientationPatient=[0] * 6), _direction)
_add(
    "rows and columns not at right angles",
    setting(ImageOrientationPatient=[1, 0, 0, 0.7071, 0.7071, 0]),
    _direction,
)
_add(
    "another orientation of one slice",
    only(2, setting(ImageOrientationPatient=[0, 1, 0, 1, 0, 0])),
    _direction,
)
_add(
    "several frames of reference",
    lambda d, k: setattr(d, "FrameOfReferenceUID", f"1.2.{k + 1}"),
    Refused((3,), "frame"),
)
_size = Refused((3,), "Rows|Columns|size|pixels|pixel data|shape")
_add("no rows", setting(Rows=0), _size)
_add("60000 rows claimed", setting(Rows=60000), _size)
_add("65535 x 65535 pixels claimed", setting(Rows=65535, Columns=65535), _size)
_add("another number of rows in one slice", only(3, setting(Rows=20)), _size)

_MULTI = "restore scan.dcm -o out.nii.gz -t mri-sr"


@FAMILY.case(Restored(keeps(MR, affine())), words=_MULTI)
def enhanced_MR(folder: Path) -> None:
    write(enhanced(COUNT), folder / "scan.dcm")


@FAMILY.case(Restored(keeps(MR[..., :1], affine())), words=_MULTI)
def enhanced_with_one_frame(folder: Path) -> None:
    write(enhanced(1), folder / "scan.dcm")


@FAMILY.case(Restored(keeps(MR, affine())), words=_MULTI)
def enhanced_with_empty_shared_groups(folder: Path) -> None:
    d = enhanced(COUNT)
    for frame in d.PerFrameFunctionalGroupsSequence:
        for group in d.SharedFunctionalGroupsSequence[0]:
            frame[group.tag] = copy.deepcopy(group)
    d.SharedFunctionalGroupsSequence = []
    write(d, folder / "scan.dcm")


_frames = Refused((3,), "frame|position|group|pixel data")


@FAMILY.case(_frames, words=_MULTI)
def enhanced_without_positions(folder: Path) -> None:
    d = enhanced(COUNT)
    for frame in d.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    write(d, folder / "scan.dcm")


@FAMILY.case(_frames, words=_MULTI)
def enhanced_that_claims_more_frames(folder: Path) -> None:
    d = enhanced(COUNT)
    d.NumberOfFrames = 2_000_000_000
    write(d, folder / "scan.dcm")


@FAMILY.case(_frames, words=_MULTI)
def enhanced_with_fewer_groups_than_frames(folder: Path) -> None:
    d = enhanced(COUNT)
    d.PerFrameFunctionalGroupsSequence = list(d.PerFrameFunctionalGroupsSequence)[:3]
    write(d, folder / "scan.dcm")


@FAMILY.case(_frames, words=_MULTI)
def enhanced_without_functional_groups(folder: Path) -> None:
    d = enhanced(COUNT)
    del d.SharedFunctionalGroupsSequence, d.PerFrameFunctionalGroupsSequence
    write(d, folder / "scan.dcm")


@FAMILY.case(Restored(keeps(MR[..., ::-1][..., ::-1], affine())), words=_MULTI)
def enhanced_with_frames_in_another_order(folder: Path) -> None:
    d = enhanced(COUNT)
    order = [3, 0, 5, 1, 4, 2]
    groups = list(d.PerFrameFunctionalGroupsSequence)
    d.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]
    d.PixelData = np.stack([MR[..., k].T for k in order]).astype(np.uint16).tobytes()
    write(d, folder / "scan.dcm")


def _mosaic(folder: Path) -> None:
    tiles = [MR[:, :, k % COUNT].T + 10 * k for k in range(9)]
    image = np.block([[tiles[3 * r + c] for c in range(3)] for r in range(3)]).T

    def edit(d: Dataset, k: int) -> None:
        d.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        d.Manufacturer, d.SpacingBetweenSlices = "SIEMENS", 3.3
        block = d.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0A, "US", 9)

    series(folder / "series", edit, "MR", image[..., None])


def _nine_slices(folder: Path) -> None:
    keeps(np.stack([MR[..., k % COUNT] + 10 * k for k in range(9)], -1), None)(folder)


FAMILY.add(
    "a mosaic",
    _mosaic,
    Restored(_nine_slices),
    Refused((3, 4), "mosaic"),
    words="restore series -o out.nii.gz -t mri-sr",
)
_add("no slice thickness", without("SliceThickness"), Restored(keeps(CT, affine())))
_add("another slice thickness", setting(SliceThickness=9), Restored(keeps(CT, affine())))
_add("oblique", setting(ImageOrientationPatient=[0.8, 0.6, 0, -0.6, 0.8, 0]), Restored(finite))
assert SPACING[0] != SPACING[1]  # so that a swap is seen
