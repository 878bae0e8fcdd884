"""What a derived image does not take over from the header of its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

# Bound to the pixel data or to the file of the source.
DROPPED = (
    "ConcatenationFrameOffsetNumber",
    "ConcatenationUID",
    "DataSetTrailingPadding",
    "DigitalSignaturesSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "IconImageSequence",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "InstanceAvailability",
    "InstanceCreatorUID",
    "LargestPixelValueInSeries",
    "LengthToEnd",
    "MACParametersSequence",
    "PixelDataProviderURL",
    "RetrieveAETitle",
    "RetrieveURL",
    "SmallestPixelValueInSeries",
    "SOPInstanceUIDOfConcatenationSource",
)
# Signatures, icons, encrypted attributes, and what private elements mean; in items too.
_NOWHERE = (0xFFFAFFFA, 0x04000500, 0x00880200, 0x00080300, 0x4FFE0001)
_PIXEL_GROUP = 0x7FE0
_OVERLAY_DATA = 0x3000


def strip(dataset: Dataset, *, keep_pixel_grid: bool = True) -> None:
    """Remove from a header what does not hold for, or must not be in, a derived image.

    These are private elements and group lengths at any depth, command and file elements, the pixel
    data, curves, signatures, the icon, offset tables, and overlays in the unused bits of the pixels
    or, where the grid changes, all overlays and shutters. Values that stay are not decoded, so that
    they are written with the bytes that they were read with.

    Args:
        dataset: Header to change.
        keep_pixel_grid: Whether the rows and columns of the image stay.
    """
    _strip_everywhere(dataset)
    for keyword in DROPPED:
        if keyword in dataset:
            delattr(dataset, keyword)
    for tag in list(dataset.keys()):
        overlay = 0x6000 <= tag.group <= 0x60FF
        if (
            tag.group < 0x0008
            or tag.group == _PIXEL_GROUP
            or 0x5000 <= tag.group <= 0x50FF
            or (overlay and not (keep_pixel_grid and _own_overlay(dataset, tag.group)))
        ):
            del dataset[tag]
    if not keep_pixel_grid:
        for keyword in dataset.dir("Shutter"):
            delattr(dataset, keyword)


def _own_overlay(dataset: Dataset, group: int) -> bool:
    """Whether an overlay has its bits in an element of its own, not in those of the pixels."""
    return (group, _OVERLAY_DATA) in dataset


def _strip_everywhere(dataset: Dataset) -> None:
    for tag in list(dataset.keys()):
        unreadable = _is_sequence(dataset, tag) and isinstance(dataset[tag].value, bytes)
        if (
            tag.is_private
            or (tag.element == 0 and tag.group != 0x0002)
            or unreadable
            or tag in _NOWHERE
            or _is_unknown(dataset, tag)
        ):
            del dataset[tag]
        elif _is_sequence(dataset, tag):
            for item in dataset[tag].value or ():
                _strip_everywhere(item)


def _is_unknown(dataset: Dataset, tag: BaseTag) -> bool:
    """Whether nothing says what an element holds, which may be anything."""
    from pydicom.datadict import dictionary_has_tag

    return dataset.get_item(tag).VR == "UN" and not dictionary_has_tag(tag)


def _is_sequence(dataset: Dataset, tag: BaseTag) -> bool:
    from pydicom.datadict import dictionary_VR

    stated = dataset.get_item(tag).VR
    if stated not in (None, "UN"):
        return bool(stated == "SQ")
    try:
        return bool(dictionary_VR(tag) == "SQ")
    except KeyError:
        return False
