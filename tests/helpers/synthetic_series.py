"""A synthetic oblique DICOM series, written slice by slice with pydicom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from restore_rwkv.io import Volume

# Row and column direction of an oblique series: orthonormal, no component is zero.
ROW = np.array([2.0, -1.0, 2.0]) / 3
COLUMN = np.array([2.0, 2.0, -1.0]) / 3
NORMAL = np.cross(ROW, COLUMN)
ORIGIN = np.array([-31.5, 12.25, 77.0])
SPACING = (0.8, 0.5)  # between rows, between columns
STEP = 2.5
ROWS, COLUMNS, SLICES = 5, 7, 4

SeriesWriter = Callable[..., Path]
Change = Callable[[int, Dataset], None]


def slope_of(k: int) -> float:
    """Return the rescale slope of slice k, another one for each."""
    return 0.5 + 0.25 * k


def stored_slice(k: int) -> np.ndarray:
    """Return the stored pixels of slice k, all different in the series."""
    return (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) + 100 * k - 50).astype(np.int16)


def make_slice(k: int) -> Dataset:
    """Return slice k, counted along the normal."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.4"
    dataset.FrameOfReferenceUID = "1.2.3.5"
    dataset.Modality = "CT"
    dataset.SeriesNumber = 7
    dataset.SeriesDescription = "oblique"
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = [f"{x:.10g}" for x in ORIGIN + k * STEP * NORMAL]
    dataset.ImageOrientationPatient = [f"{x:.10g}" for x in (*ROW, *COLUMN)]
    dataset.PixelSpacing = list(SPACING)
    dataset.SliceThickness = 9.0  # not the distance of the slices
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope = slope_of(k)
    dataset.RescaleIntercept = -10 - k
    dataset.WindowCenter, dataset.WindowWidth = 0, 1
    dataset.PixelData = stored_slice(k).tobytes()
    return dataset


def save(dataset: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    """Write a data set as a DICOM file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID") or CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.save_as(path, enforce_file_format=True)


def change_third(**values: object) -> Change:
    """Return a change of the third slice only."""

    def change(k: int, dataset: Dataset) -> None:
        if k == 2:
            for keyword, value in values.items():
                setattr(dataset, keyword, value)

    return change


def lps(volume: Volume, *index: int) -> np.ndarray:
    """Return where a voxel lies in DICOM's patient coordinates, in mm."""
    assert volume.affine is not None
    x, y, z = nibabel.affines.apply_affine(volume.affine, index)
    return np.array([-x, -y, z])
