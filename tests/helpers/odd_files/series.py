"""Small synthetic DICOM series, classic and enhanced, and checks of what is read from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from tests.helpers.odd_files.images import Array, ct, mri

Edit = Callable[[Dataset, int], object]

ORIGIN, SPACING, STEP = (-24.0, -20.0, 10.0), (1.0, 1.25), (0.0, 0.0, 3.0)
COUNT = 6
CT, MR = ct((48, 40, COUNT)), mri((48, 40, COUNT))
"""Values by column, row and slice; every slice differs."""

_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}


def affine(step: Sequence[float] = STEP, origin: Sequence[float] = ORIGIN) -> Array:
    """Return the affine, RAS+, of an axial series whose slices are a step apart."""
    matrix = np.eye(4)
    matrix[:3, 0] = SPACING[1], 0, 0
    matrix[:3, 1] = 0, SPACING[0], 0
    matrix[:3, 2] = step
    matrix[:3, 3] = origin
    return np.diag([-1.0, -1, 1, 1]) @ matrix


def uid(*words: object) -> str:
    """Return the same identifier for the same words."""
    return str(generate_uid(entropy_srcs=[str(word) for word in words]))


def make(k: int, values: Array, modality: str = "CT", name: str = "series") -> Dataset:
    """Return slice ``k`` of a series, from its stored values by column and row, int16."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID, d.SOPInstanceUID = _CLASSES[modality], uid(name, k)
    d.StudyInstanceUID, d.SeriesInstanceUID = uid("study"), uid(name)
    d.FrameOfReferenceUID = uid("frame")
    d.Modality, d.SeriesNumber, d.InstanceNumber = modality, 3, k + 1
    d.PatientID, d.PatientName, d.SeriesDescription = "phantom", "Phantom^Disc", "disc"
    d.StudyID, d.StudyDate, d.StudyTime = "1", "20200101", "100000"
    d.Manufacturer, d.ImageType = "Nobody", ["ORIGINAL", "PRIMARY", "AXIAL"]
    d.Rows, d.Columns = values.shape[1], values.shape[0]
    d.PixelSpacing, d.SliceThickness = list(SPACING), 3.0
    d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    d.ImagePositionPatient = [float(o + k * s) for o, s in zip(ORIGIN, STEP, strict=True)]
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated = d.BitsStored = 16
    d.HighBit, d.PixelRepresentation = 15, 1
    if modality == "CT":
        d.RescaleSlope, d.RescaleIntercept = 1, 0
    if modality == "MR":
        d.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    set_pixels(d, values)
    return d


def set_pixels(d: Dataset, values: Array) -> None:
    """Set the pixel data, from integers by column and row."""
    d.PixelData = np.ascontiguousarray(values.T).tobytes()
    d["PixelData"].VR = "OW"


def write(d: Dataset, path: Path) -> None:
    """Write a data set as a DICOM file with its preamble, in the transfer syntax it names."""
    d.file_meta.MediaStorageSOPClassUID = d.get("SOPClassUID") or CTImageStorage
    d.file_meta.MediaStorageSOPInstanceUID = d.get("SOPInstanceUID") or uid("none")
    path.parent.mkdir(parents=True, exist_ok=True)
    d.save_as(path, enforce_file_format=True)


def series(
    folder: Path, edit: Edit | None = None, modality: str = "CT", values: Array | None = None
) -> Path:
    """Write a series into a folder, after ``edit(dataset, k)`` of each slice; return the folder."""
    if values is None:
        values = CT if modality == "CT" else MR
    for k in range(values.shape[2]):
        d = make(k, values[..., k].astype(np.int16), modality, folder.name)
        if edit is not None:
            edit(d, k)
        write(d, folder / f"slice{k:03d}.dcm")
    return folder


def setting(**values: object) -> Edit:
    """Return an edit that sets attributes of every slice."""

    def edit(d: Dataset, k: int) -> None:
        for keyword, value in values.items():
            setattr(d, keyword, value)

    return edit


def without(*keywords: str) -> Edit:
    """Return an edit that removes attributes from every slice."""

    def edit(d: Dataset, k: int) -> None:
        for keyword in keywords:
            delattr(d, keyword)

    return edit


def only(k: int, change: Edit) -> Edit:
    """Return an edit of one slice."""
    return lambda d, i: change(d, i) if i == k else None


def enhanced(frames: int) -> Dataset:
    """Return an enhanced MR object with its geometry in functional groups."""
    d = make(0, MR[..., 0].astype(np.int16), "MR", "enhanced")
    d.SOPClassUID = EnhancedMRImageStorage
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(d, keyword)
    d.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    d.ContentDate, d.ContentTime = "20200101", "100000"
    d.NumberOfFrames, d.PixelRepresentation = frames, 0
    d.PixelData = np.stack([MR[..., k].T for k in range(frames)]).astype(np.uint16).tobytes()
    dimension = uid("dimension")
    d.DimensionOrganizationSequence = [item(DimensionOrganizationUID=dimension)]
    d.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID=dimension,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=0x00209111,
        )
        for pointer in (0x00209056, 0x00209057)
    ]
    measures = item(PixelSpacing=list(SPACING), SliceThickness=3.0, SpacingBetweenSlices=3.0)
    shared = item(
        PixelMeasuresSequence=[measures],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelValueTransformationSequence=[
            item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")
        ],
    )
    d.SharedFunctionalGroupsSequence = [shared]
    d.PerFrameFunctionalGroupsSequence = [_frame(k) for k in range(frames)]
    return d


def _frame(k: int) -> Dataset:
    position = [float(o + k * s) for o, s in zip(ORIGIN, STEP, strict=True)]
    content = item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])
    return item(
        FrameContentSequence=[content],
        PlanePositionSequence=[item(ImagePositionPatient=position)],
    )


def item(**values: object) -> Dataset:
    """Return a data set with these attributes."""
    d = Dataset()
    for keyword, value in values.items():
        setattr(d, keyword, value)
    return d
