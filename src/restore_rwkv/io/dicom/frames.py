"""Frames of an enhanced multi-frame file, each with the header that a file of its own would have.

With it, the slices of enhanced and of classic files go through one path of geometry and units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.files import DicomImage, read_elements, refusing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
# Functional groups that place, scale and tell frames apart. Those of legacy converted objects that
# have no group of their own stand in the last two.
_GROUPS = (
    "UnassignedSharedConvertedAttributesSequence",  # first, so that those of the standard count
    "UnassignedPerFrameConvertedAttributesSequence",
    "CTImageFrameTypeSequence",
    "CardiacSynchronizationSequence",
    "FrameContentSequence",
    "MRDiffusionSequence",
    "MREchoSequence",
    "MRImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
)
_MAPS = "RealWorldValueMappingSequence"
_PET_UNITS = {"Bq/ml": "BQML", "{SUVbw}g/ml": "GML", "g/ml{SUVbw}": "GML"}  # of UCUM


def frame_headers(image: DicomImage) -> list[Dataset] | None:
    """Return one header for each frame of an enhanced file, or None for other files.

    Args:
        image: A file with the header that sorts and places it.

    Returns:
        The elements of the file, and over them those of the functional groups of the frame, in the
        order of the frames.

    Raises:
        InputError: The functional groups are damaged, or their number is not that of the frames.
    """
    if "NumberOfFrames" not in image.header and _SHARED not in image.header:
        return None
    groups = read_elements(image.path, (_SHARED, _PER_FRAME))
    name = image.path.name
    with refusing(name, "the frames cannot be placed"):
        shared = list(groups.get(_SHARED) or ())
        each = list(groups.get(_PER_FRAME) or ())
        if not shared and not each:
            return None
        count = int(image.header.get("NumberOfFrames") or 1)
        if count > 1 and not each:
            raise InputError(
                f"{name}: has {count} frames without a position of their own; export single slices"
            )
        if each and len(each) != count:
            raise InputError(
                f"{name}: has {count} frames, but functional groups of {len(each)}; export it again"
            )
        items = [[*shared[:1], *each[i : i + 1]] for i in range(count)]
        return [_merged(image.header, item) for item in items]


def rescale_of(header: Dataset) -> tuple[float, float]:
    """Slope and intercept of a frame; 1 and 0 where it has none."""
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    return (1.0 if slope is None else float(slope)), float(intercept or 0)


def require_one_stack(frames: list[Dataset], name: str) -> None:
    """Refuse a file whose frames belong to several stacks.

    Raises:
        InputError: There are several values of StackID.
    """
    stacks = dict.fromkeys(str(frame.get("StackID") or "") for frame in frames)
    if len(stacks) > 1:
        listed = ", ".join(list(stacks)[:4]) + ", ..." * (len(stacks) > 4)
        raise InputError(
            f"{name}: {len(stacks)} stacks of slices (StackID {listed}); export each as a series "
            "of its own, dcm2niix can"
        )


def _merged(header: Dataset, items: list[Dataset]) -> Dataset:
    from pydicom.dataset import Dataset

    frame = Dataset()
    for element in header:
        if element.keyword != _SHARED:
            frame[element.tag] = element
    for group in _groups(items):
        for element in group:
            frame[element.tag] = element
    if "Units" not in frame and (units := _pet_units(frame, items)):
        frame.Units = units
    return frame


def _groups(items: list[Dataset]) -> Iterator[Dataset]:
    """The items of the functional groups, those of the frame itself last."""
    for item in items:
        for keyword in _GROUPS:
            yield from list(item.get(keyword) or ())[:1]


def _pet_units(frame: Dataset, items: list[Dataset]) -> str | None:
    """Units in DICOM's word for classic PET, where a map to them is the rescaling itself."""
    rescaling = rescale_of(frame)
    for mapping in [mapping for item in items for mapping in item.get(_MAPS) or ()]:
        codes = mapping.get("MeasurementUnitsCodeSequence") or ()
        units = [_PET_UNITS.get(str(code.get("CodeValue"))) for code in codes]
        slope, intercept = (
            mapping.get("RealWorldValueSlope"),
            mapping.get("RealWorldValueIntercept"),
        )
        if slope is None or intercept is None or not units:
            continue
        pairs = zip((float(slope), float(intercept)), rescaling, strict=True)
        if all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12) for a, b in pairs):
            return units[0]
    return None
