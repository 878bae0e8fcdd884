"""What a derived series changes of the header of its source, attribute by attribute.

These tables are for people, as in a conformance statement. A test compares them with derived series
of every kind, in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from restore_rwkv.io.dicom.derived import (
    INTELLIGENCE,
    NUMBER_OFFSET,
    PROCESSING_EQUIPMENT,
    RESAMPLING,
    SMOOTHING,
    SOFTWARE,
    SOURCE_IMAGE,
)
from restore_rwkv.io.dicom.enhanced import PULSE_SEQUENCE
from restore_rwkv.io.dicom.place import SIZES
from restore_rwkv.io.dicom.strip import DROPPED as DROPPED_EVERYWHERE

Scope = Literal[
    "all",
    "classic",
    "enhanced",
    "classic CT and MR",
    "CT and MR",
    "PET",
    "classic PET",
    "finer grid",
    "classic, finer grid",
    "enhanced, finer grid",
    "lossy source",
]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What kind of image an attribute is in.

    Attributes:
        modality: "CT", "MR" or "PT".
        enhanced: Whether all frames are in one file.
        finer: Whether the derived image has a finer grid than its source.
        lossy: Whether the source was compressed with loss.
    """

    modality: str
    enhanced: bool
    finer: bool
    lossy: bool


HOLDS: Mapping[Scope, Callable[[Kind], bool]] = {
    "all": lambda kind: True,
    "classic": lambda kind: not kind.enhanced,
    "enhanced": lambda kind: kind.enhanced,
    "classic CT and MR": lambda kind: not kind.enhanced and kind.modality != "PT",
    "CT and MR": lambda kind: kind.modality != "PT",
    "PET": lambda kind: kind.modality == "PT",
    "classic PET": lambda kind: not kind.enhanced and kind.modality == "PT",
    "finer grid": lambda kind: kind.finer,
    "classic, finer grid": lambda kind: kind.finer and not kind.enhanced,
    "enhanced, finer grid": lambda kind: kind.finer and kind.enhanced,
    "lossy source": lambda kind: kind.lossy,
}
"""Whether what is said of a scope holds for an image."""


@dataclass(frozen=True)
class Change:
    """What becomes of an attribute.

    Attributes:
        keyword: Of the attribute; in enhanced images it may be in the functional groups.
        what: Its value, or why it is treated so.
        scope: In which images.
    """

    keyword: str
    what: str
    scope: Scope = "all"


def _code(code: tuple[str, str, str]) -> str:
    value, scheme, meaning = code
    return f"({value}, {scheme}, {meaning})"


_CODES = f"{_code(SMOOTHING)}, or {_code(RESAMPLING)} on a finer grid; {_code(INTELLIGENCE)}"
_SOURCES = f"each image that it was made from, purpose {_code(SOURCE_IMAGE)}"
_MADE = "program and version, what was done, weights and their SHA-256, notice"
_LOSSY = "that the source was compressed with loss"

ADDED = (
    Change("InstanceCreationDate", "day on which it was made"),
    Change("InstanceCreationTime", "time at which it was made"),
    Change("ContributingEquipmentSequence", f"item appended: {_code(PROCESSING_EQUIPMENT)}"),
    Change("ReferencedSeriesSequence", "item appended: series and instances of the source"),
    Change("DerivationDescription", _MADE, "classic"),
    Change("DerivationCodeSequence", _CODES, "classic"),
    Change("SourceImageSequence", _SOURCES, "classic"),
    Change(
        "DerivationImageSequence",
        f"in every frame: {_MADE}; {_CODES}; frames that it was made from, {_code(SOURCE_IMAGE)}",
        "enhanced",
    ),
    Change("SourceImageEvidenceSequence", "study, series and instance of the source", "enhanced"),
    Change("LossyImageCompression", _LOSSY, "lossy source"),
    Change("LossyImageCompressionMethod", _LOSSY, "lossy source"),
    Change("LossyImageCompressionRatio", _LOSSY, "lossy source"),
)
"""Attributes that are new, or replaced or extended where the source has them."""

CHANGED = (
    Change("SOPInstanceUID", "new"),
    Change("SeriesInstanceUID", "new, one for the derived series"),
    Change("SeriesNumber", f"that of the source plus {NUMBER_OFFSET}"),
    Change("SeriesDescription", f"that of the source, and AI-restored ({SOFTWARE} TASK)"),
    Change("SeriesDate", "day on which it was made", "CT and MR"),
    Change("SeriesTime", "time at which it was made", "CT and MR"),
    Change("ContentDate", "day on which it was made"),
    Change("ContentTime", "time at which it was made"),
    Change("ImageType", "DERIVED, SECONDARY, then as in the source", "classic CT and MR"),
    Change("ImageType", "DERIVED, PRIMARY, then as in the source", "classic PET"),
    Change("ImageType", "DERIVED, PRIMARY, as in the source, FILTERED for NONE", "enhanced"),
    Change("FrameType", "DERIVED, PRIMARY, as in the source, FILTERED for NONE", "enhanced"),
    Change("ContentQualification", "RESEARCH", "enhanced"),
    Change("InstanceNumber", "that of the source where these differ, else counted", "classic"),
    Change("PixelData", "restored, uncompressed"),
    Change("SmallestImagePixelValue", "of the restored pixels, where the source has it"),
    Change("LargestImagePixelValue", "of the restored pixels, where the source has it"),
    Change("HighBit", "BitsStored minus 1"),
    Change("RescaleSlope", "new for each slice, so that no value is clipped", "PET"),
    Change("RescaleIntercept", "0", "PET"),
    Change("Rows", "those of the finer grid", "finer grid"),
    Change("Columns", "those of the finer grid", "finer grid"),
    Change("PixelSpacing", "that of the finer grid", "finer grid"),
    Change("ImagePositionPatient", "moved so that the edges of the image stay", "finer grid"),
)
"""Attributes of the source that get another value."""

DROPPED = (
    *(Change(keyword, "holds for the source only") for keyword in DROPPED_EVERYWHERE),
    *(Change(keyword, "original MR images only have it", "enhanced") for keyword in PULSE_SEQUENCE),
    Change("RealWorldValueMappingSequence", "maps the former stored values", "PET"),
    *(Change(keyword, "of the former grid", "classic, finer grid") for keyword in SIZES),
    Change("FrameDisplayShutterSequence", "of the former grid", "enhanced, finer grid"),
)
"""Attributes of the source that are left out."""

DROPPED_KINDS = (
    "private attributes, and attributes of unknown meaning, at any depth",
    "group lengths, at any depth",
    "digital signatures, icons and encrypted attributes, at any depth",
    "curves (groups 5000 to 50FF)",
    "overlays in unused bits of the pixels; on a finer grid all overlays and shutters",
)
"""Further attributes of the source that are left out, in words."""

KEPT = (
    Change("SpecificCharacterSet", "texts keep their bytes"),
    Change("StudyInstanceUID", "the same study"),
    Change("StudyDate", "the same study"),
    Change("StudyTime", "the same study"),
    Change("StudyID", "the same study"),
    Change("AccessionNumber", "the same study"),
    Change("ReferringPhysicianName", "the same study"),
    Change("PatientName", "the same patient"),
    Change("PatientID", "the same patient"),
    Change("PatientBirthDate", "the same patient"),
    Change("PatientSex", "the same patient"),
    Change("PatientWeight", "the same patient"),
    Change("SOPClassUID", "the same kind of image"),
    Change("Modality", "the same kind of image"),
    Change("Manufacturer", "of the scanner"),
    Change("ManufacturerModelName", "of the scanner"),
    Change("DeviceSerialNumber", "of the scanner"),
    Change("SoftwareVersions", "of the scanner"),
    Change("AcquisitionDate", "of the acquisition"),
    Change("AcquisitionTime", "of the acquisition"),
    Change("AcquisitionNumber", "of the acquisition"),
    Change("FrameOfReferenceUID", "the same place"),
    Change("PatientPosition", "the same place"),
    Change("ImageOrientationPatient", "the same place"),
    Change("SliceThickness", "the same place"),
    Change("BitsAllocated", "stored in the same way"),
    Change("BitsStored", "stored in the same way"),
    Change("PixelRepresentation", "stored in the same way"),
    Change("PhotometricInterpretation", "stored in the same way"),
    Change("RescaleSlope", "values beyond what it allows are clipped and counted", "CT and MR"),
    Change("RescaleIntercept", "stored in the same way", "CT and MR"),
    Change("WindowCenter", "the same values"),
    Change("WindowWidth", "the same values"),
    Change("SeriesDate", "decay correction refers to it", "PET"),
    Change("SeriesTime", "decay correction refers to it", "PET"),
    Change("Units", "the same values", "PET"),
    Change("DecayCorrection", "the same values", "PET"),
    Change("RadiopharmaceuticalInformationSequence", "of the acquisition", "PET"),
)
"""The most important attributes that stay; so do all that no other table names."""
