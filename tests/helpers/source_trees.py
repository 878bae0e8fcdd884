"""Small files of the kinds that the data sets come in."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def blob(*shape: int, seed: int = 0, air: float = 0.0, tissue: float = 1000.0) -> np.ndarray:
    """Whole numbers: tissue with texture in the middle two thirds of each axis, air around it."""
    values = np.full(shape, air)
    middle = tuple(slice(n // 6, n - n // 6) for n in shape)
    texture = np.random.default_rng(seed).integers(-50, 50, values[middle].shape)
    values[middle] = tissue + texture
    return values


def save_nifti(
    path: Path, data: np.ndarray, affine: np.ndarray | None = None, dtype: Any = np.int16
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype(dtype), np.eye(4) if affine is None else affine), path)
    return path


def save_pickle(path: Path, array: object, protocol: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(array, protocol=protocol))
    return path


def save_ct(
    folder: Path,
    images: np.ndarray,
    *,
    names: str = "{}.dcm",
    positions: list[float] | None = None,
    step: float = 2.0,
    origin: tuple[float, float] = (-10.0, -20.0),
    **header: Any,
) -> Path:
    """Write slices (N, rows, columns) in HU as a DICOM series, in an order that is not theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = generate_uid()
    places = positions or [step * k for k in range(len(images))]
    for k, (image, place) in enumerate(zip(images, places, strict=True)):
        dataset = Dataset()
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID = "1.2.3"
        dataset.SeriesInstanceUID = uid
        dataset.Modality = "CT"
        dataset.SliceThickness = 3.0
        dataset.ImagePositionPatient = [*origin, place]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing = [0.5, 0.75]  # of rows, of columns
        dataset.Rows, dataset.Columns = image.shape
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.PixelRepresentation = 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PixelData = (image + 1024).astype(np.uint16).tobytes()
        for keyword, value in header.items():
            setattr(dataset, keyword, value)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        number = (k * 7 + 3) % len(images) if len(images) % 7 else k
        dataset.save_as(folder / names.format(f"{number:04d}"), enforce_file_format=True)
    return folder


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
