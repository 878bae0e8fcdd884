"""DICOM as people have it: data sets without a preamble, exported CDs, enhanced files, mosaics."""

from __future__ import annotations

import gc
import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.fileset import FileSet
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, EnhancedPETImageStorage

from tests.helpers.synthetic_series import (
    COLUMN,
    NORMAL,
    ORIGIN,
    ROW,
    SLICES,
    SPACING,
    STEP,
    make_slice,
    save,
    slope_of,
    stored_slice,
)

_ENHANCED = {"MR": EnhancedMRImageStorage, "CT": EnhancedCTImageStorage}
_ENHANCED["PT"] = EnhancedPETImageStorage
_TOP_LEVEL = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
_TOP_LEVEL += ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")


def bare(dataset: Dataset, *, implicit: bool) -> bytes:
    """Return a data set without preamble and file meta information."""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, implicit
    write_dataset(stream, dataset)
    return stream.getvalue()


def write_cd(folder: Path, series: Mapping[str, Sequence[Dataset]]) -> Path:
    """Write an exported CD, DICOMDIR and nested folders, and return its folder."""
    files = FileSet()
    for uid, slices in series.items():
        for number, dataset in enumerate(slices, start=1):
            dataset.SeriesInstanceUID, dataset.InstanceNumber = uid, number
            dataset.PatientID = dataset.PatientName = "T1"
            dataset.StudyDate, dataset.StudyTime = "20200101", "100000"
            dataset.StudyID, dataset.AccessionNumber = "1", ""
            save(dataset, folder.parent / "one.dcm")
            files.add(folder.parent / "one.dcm")
    files.write(folder)
    (folder.parent / "one.dcm").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # its own temporary folder
        del files
        gc.collect()
    return folder


def item(**elements: object) -> Dataset:
    """Return an item of a sequence."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(modality: str = "MR", slices: int = SLICES) -> Dataset:
    """Return an enhanced object: a slope for each frame, the slices in falling order."""
    dataset = make_slice(0)
    for keyword in _TOP_LEVEL:
        delattr(dataset, keyword)
    dataset.SOPClassUID, dataset.Modality = _ENHANCED[modality], modality
    dataset.NumberOfFrames = slices
    orientation = item(ImageOrientationPatient=[f"{x:.10g}" for x in (*ROW, *COLUMN)])
    measures = item(PixelSpacing=list(SPACING), SpacingBetweenSlices=STEP, SliceThickness=STEP)
    shared = item(
        PlaneOrientationSequence=Items([orientation]), PixelMeasuresSequence=Items([measures])
    )
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    order = list(reversed(range(slices)))
    dataset.PerFrameFunctionalGroupsSequence = Items([_frame(k, modality) for k in order])
    dataset.PixelData = b"".join(stored_slice(k).tobytes() for k in order)
    return dataset


def _frame(k: int, modality: str) -> Dataset:
    position = item(ImagePositionPatient=[f"{x:.10g}" for x in ORIGIN + k * STEP * NORMAL])
    kind = "HU" if modality == "CT" else "US"
    values = item(RescaleSlope=slope_of(k), RescaleIntercept=k, RescaleType=kind)
    return item(
        PlanePositionSequence=Items([position]), PixelValueTransformationSequence=Items([values])
    )


def mosaic(
    tiles: np.ndarray, *, normal: Sequence[float] | None = None, distance: float | None = STEP
) -> Dataset:
    """Return a mosaic as Siemens scanners write it.

    Args:
        tiles: (slices, rows, columns), uint16.
        normal: SliceNormalVector of the private header; None for a file without that header.
        distance: SpacingBetweenSlices.
    """
    count, rows, columns = tiles.shape
    side = int(np.ceil(np.sqrt(count)))
    padded = np.zeros((side * side, rows, columns), np.uint16)
    padded[:count] = tiles
    dataset = make_slice(0)
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.Modality, dataset.Manufacturer, dataset.PixelRepresentation = "MR", "SIEMENS", 0
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    dataset.Rows, dataset.Columns = rows * side, columns * side
    if distance is not None:
        dataset.SpacingBetweenSlices = distance
    # The position of an image of the mosaic's size around the centre of the first slice.
    shift = (
        ROW * SPACING[1] * columns * (side - 1) / 2 + COLUMN * SPACING[0] * rows * (side - 1) / 2
    )
    dataset.ImagePositionPatient = [f"{x:.10g}" for x in ORIGIN - shift]
    grid = padded.reshape(side, side, rows, columns).swapaxes(1, 2)
    dataset.PixelData = grid.reshape(side * rows, side * columns).tobytes()
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0A, "US", count)
    if normal is not None:
        block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        values = {
            "NumberOfImagesInMosaic": ("US", [str(count)]),
            "SliceNormalVector": ("FD", [f"{x:.8f}" for x in normal]),
            "AcquisitionMatrixText": ("SH", [f"{rows}*{columns}"]),
        }
        block.add_new(0x10, "OB", _csa(values))
    return dataset


def _csa(values: Mapping[str, tuple[str, list[str]]]) -> bytes:
    """Return a private header of Siemens, version 2 ("SV10")."""
    out = b"SV10\4\3\2\1" + struct.pack("<II", len(values), 77)
    for name, (kind, items) in values.items():
        out += struct.pack("<64si4siii", name.encode(), len(items), kind.encode(), 0, 6, 77)
        for number in range(6):
            text = items[number].encode() + b"\0" if number < len(items) else b""
            out += struct.pack("<4i", len(text), len(text), 77, len(text))
            out += text + bytes(-len(text) % 4)
    return out
