"""Derived enhanced images: what the frames of a multi-frame file say in their functional groups."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.derived import (
    NewSeries,
    dataset_of,
    derivation_item,
    parts,
    reference,
)
from restore_rwkv.io.dicom.place import Place, place_of, set_finer_grid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FRAME_TYPES = (
    "CTImageFrameTypeSequence",
    "MRImageFrameTypeSequence",
    "PETFrameTypeSequence",
)
# The MR pulse sequence module, which only original images have.
PULSE_SEQUENCE = (
    "ArterialSpinLabelingContrast",
    "CoverageOfKSpace",
    "EchoPlanarPulseSequence",
    "EchoPulseSequence",
    "GeometryOfKSpaceTraversal",
    "MRAcquisitionType",
    "MultiPlanarExcitation",
    "MultipleSpinEcho",
    "NumberOfKSpaceTrajectories",
    "OversamplingPhase",
    "PhaseContrast",
    "PulseSequenceName",
    "RectilinearPhaseEncodeReordering",
    "SaturationRecovery",
    "SegmentedKSpaceTraversal",
    "SpectrallySelectedSuppression",
    "SteadyStatePulseSequence",
    "TimeOfFlightContrast",
    "VelocityEncodingAcquisitionSequence",
)
_RESCALE = "PixelValueTransformationSequence"


def frame_places(header: Dataset, name: str) -> list[Place]:
    """Return where the frames of an enhanced image lie, in the order of the file.

    Args:
        header: Header of the image.
        name: Its file name, for messages.

    Raises:
        InputError: A frame lacks its position, orientation or spacing.
    """
    places = []
    for i in range(len(header.PerFrameFunctionalGroupsSequence)):
        groups = [
            _group(header, i, keyword)
            for keyword in (
                "PlanePositionSequence",
                "PlaneOrientationSequence",
                "PixelMeasuresSequence",
            )
        ]
        if any(group is None for group in groups):
            raise InputError(
                f"{name}: frame {i + 1} has no position, orientation or pixel spacing; "
                "export it again, or write .nii.gz"
            )
        places.append(place_of(header, *(group for group in groups if group is not None)))
    return places


def frame_rescale(header: Dataset, frame: int) -> tuple[float, float]:
    """Slope and intercept of a frame, counted from 0."""
    item = _group(header, frame, _RESCALE)
    if item is None:
        return 1.0, 0.0
    return float(item.get("RescaleSlope", 1)), float(item.get("RescaleIntercept", 0))


def frame_thickness(header: Dataset) -> float | None:
    """SliceThickness of the first frame in mm, None if not stated."""
    item = _group(header, 0, "PixelMeasuresSequence")
    value = None if item is None else item.get("SliceThickness")
    return None if value is None else float(value)


def share_rescale(header: Dataset) -> bool:
    """Whether all frames share one slope and intercept."""
    return all(_RESCALE not in frame for frame in header.PerFrameFunctionalGroupsSequence)


def set_frame_slopes(header: Dataset, slopes: Sequence[str]) -> None:
    """Give each frame a slope, with intercept 0.

    Args:
        header: Header of an enhanced image; changed.
        slopes: One for each frame, or a single one for all, which then share it.
    """
    template = _group(header, 0, _RESCALE) or dataset_of(RescaleType="US")
    shared = header.SharedFunctionalGroupsSequence[0]
    frames = list(header.PerFrameFunctionalGroupsSequence)
    for group in (shared, *frames):
        if _RESCALE in group:
            delattr(group, _RESCALE)
    for group, slope in zip([shared] if len(slopes) == 1 else frames, slopes, strict=True):
        item = copy.deepcopy(template)
        item.RescaleSlope, item.RescaleIntercept = slope, "0"
        group.PixelValueTransformationSequence = [item]


def mark_frames(header: Dataset, series: NewSeries) -> None:
    """Give an enhanced image, after `mark_image`, what it says of its derivation, frame by frame.

    Args:
        header: Header of an enhanced image; changed.
        series: The derived series.
    """
    source = series.sources[0]
    for keyword in PULSE_SEQUENCE:
        if keyword in header:
            delattr(header, keyword)
    header.ContentQualification = "RESEARCH"
    header.ImageType = _derived_type(header, "ImageType")
    evidence = dataset_of(
        SeriesInstanceUID=series.source_uid, ReferencedSOPSequence=[reference(source)]
    )
    header.SourceImageEvidenceSequence = [
        dataset_of(StudyInstanceUID=header.StudyInstanceUID, ReferencedSeriesSequence=[evidence])
    ]
    for group in _groups(header):
        if "DerivationImageSequence" in group:
            del group.DerivationImageSequence
        for keyword in _FRAME_TYPES:
            for item in group.get(keyword) or ():
                if "FrameType" in item:
                    item.FrameType = _derived_type(item, "FrameType")
    every = series.derivation.from_all_slices  # without numbers, all frames are referred to
    for i, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
        sources = [reference(source, None if every else i + 1)]
        frame.DerivationImageSequence = [derivation_item(series, sources)]


def set_finer_frames(header: Dataset, places: Sequence[Place], shape: tuple[int, ...]) -> None:
    """Change position and pixel spacing of all frames to those of a finer grid.

    Args:
        header: Header of an enhanced image; changed.
        places: Where its frames lie, in the order of the file.
        shape: (X, Y, ...) of the finer grid.
    """
    shared = header.SharedFunctionalGroupsSequence[0]
    frames = header.PerFrameFunctionalGroupsSequence
    for group, place in zip((shared, *frames), (places[0], *places), strict=True):
        for keyword in ("PixelMeasuresSequence", "PlanePositionSequence"):
            for item in group.get(keyword) or ():
                set_finer_grid(item, place, shape)


def drop_from_frames(header: Dataset, keywords: Sequence[str]) -> None:
    """Remove functional groups from all frames."""
    for group in _groups(header):
        for keyword in keywords:
            if keyword in group:
                delattr(group, keyword)


def _derived_type(dataset: Dataset, keyword: str) -> list[str]:
    """ImageType or FrameType of a derived enhanced image, whose pixels were filtered."""
    kept = parts(dataset, keyword)[2:]
    if len(kept) > 1 and kept[1] == "NONE":
        kept[1] = "FILTERED"
    return ["DERIVED", "PRIMARY", *kept]


def _groups(header: Dataset) -> Iterator[Dataset]:
    yield from header.SharedFunctionalGroupsSequence
    yield from header.PerFrameFunctionalGroupsSequence


def _group(header: Dataset, frame: int, keyword: str) -> Dataset | None:
    """Return the functional group that holds for a frame, of its own or shared; None without."""
    own = header.PerFrameFunctionalGroupsSequence[frame]
    for groups in (own, *header.SharedFunctionalGroupsSequence):
        if groups.get(keyword):
            item: Dataset = groups[keyword].value[0]
            return item
    return None
