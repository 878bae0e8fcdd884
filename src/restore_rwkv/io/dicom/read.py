"""Reading of DICOM series: a folder of slices, one slice, or one enhanced multi-frame file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.files import (
    IDENTIFIERS,
    DicomImage,
    find_images,
    one_series,
    read_up_to_pixels,
    refusing,
)
from restore_rwkv.io.dicom.geometry import (
    LPS_TO_RAS,
    SPACING_TOLERANCE,
    TILT_TOLERANCE,
    Grid,
    series_grid,
)
from restore_rwkv.io.dicom.pixels import PixelDecoder
from restore_rwkv.io.dicom.suv import pet_unit
from restore_rwkv.io.stored import Float32Array, Float64Array, Stored
from restore_rwkv.io.volume import Source, Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class DicomSource(Source):
    """A DICOM series.

    Attributes:
        files: Its files in the order of the volume's slices; one file if it is multi-frame.
        no_suv: Why a PET's files give no SUV, in a few words; None where they do.
        series_number: SeriesNumber, as text; None where the files have none.
        series_instance_uid: SeriesInstanceUID; None where the files have none.
        sop_instance_uids: SOPInstanceUID of each file, "" where it has none.
        tilt: Angle between the stack and the normal of its slices (gantry tilt), in degrees.
    """

    files: tuple[Path, ...]
    no_suv: str | None = None
    series_number: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uids: tuple[str, ...] = ()
    tilt: float = 0.0


def read_dicom(path: Path, *, series: int | str | None = None) -> Volume:
    """Read a DICOM series from a folder (not its subfolders) or one file.

    Data axes are (column, row, slice): axis 0 runs along a row of pixels (first three numbers of
    ImageOrientationPatient), axis 1 down a column (last three), axis 2 along the cross product of
    both. The affine is converted from the LPS of DICOM to RAS+. The geometry is taken from the
    position and orientation of each slice, never from file names, instance numbers or slice
    thickness.
    Values are rescaled slice by slice; display settings (window, inversion) are not applied.

    Args:
        path: Folder or file.
        series: SeriesNumber or SeriesInstanceUID, for a folder with several series.

    Returns:
        CT in HU, PET in Bq/ml, SUV (Units GML) or a.u., MR in a.u.

    Raises:
        InputError: No DICOM images, several series, colour images, broken geometry (see
            ``series_grid``), or pixel data that cannot be decoded.
    """
    images = find_images(path)
    chosen = one_series(images, series, path.name)
    _report_missing(chosen, path.name)
    for image in chosen:
        grey = str(image.header.get("PhotometricInterpretation")).startswith("MONOCHROME")
        if not grey or image.header.get("SamplesPerPixel", 1) != 1:
            raise InputError(f"{image.path.name}: a colour image; give a series of grey images")
        if _frames(image) > 1 and len(chosen) > 1:
            raise InputError(
                f"{image.path.name}: one of several multi-frame files in its series; "
                "give only this file"
            )
    if _frames(chosen[0]) > 1:
        return _read_multi_frame(chosen[0], path)
    return _read_slices(chosen, path)


def _report_missing(images: list[DicomImage], where: str) -> None:
    missing = [key for key in IDENTIFIERS if any(not image.header.get(key) for image in images)]
    if missing:
        _log.warning(
            "%s: %s missing; the image can be read, but a derived DICOM series needs them",
            where,
            ", ".join(missing),
        )


def _frames(image: DicomImage) -> int:
    return int(image.header.get("NumberOfFrames") or 1)


def _read_slices(images: Sequence[DicomImage], path: Path) -> Volume:
    names = [image.path.name for image in images]
    grid = series_grid([image.header for image in images], names, path.name)
    images = [images[i] for i in grid.order]
    data = np.empty((grid.columns, grid.rows, len(images)), np.float32, order="F")
    with PixelDecoder() as decoder:
        for k, image in enumerate(images):
            data[..., k] = _read_pixels(image.path, grid, decoder).T
    headers = [image.header for image in images]
    files = tuple(image.path for image in images)
    return _volume(data, grid.affine, headers, path, _common_stored(headers), files)


def _read_pixels(path: Path, grid: Grid, decoder: PixelDecoder) -> Float32Array:
    """Return the values of one slice, rows by columns."""
    from pydicom.pixels.processing import apply_modality_lut

    dataset = decoder.native(read_up_to_pixels(path), path.name)
    with refusing(path.name, "the pixel data cannot be decoded"), np.errstate(over="ignore"):
        # Volume raises an error for values that overflow to infinity.
        values = np.asarray(apply_modality_lut(dataset.pixel_array, dataset), dtype=np.float32)
    if values.shape != (grid.rows, grid.columns):
        raise InputError(
            f"{path.name}: pixel data of shape {values.shape} does not fit its header; "
            "export it again"
        )
    return values


def _read_multi_frame(image: DicomImage, path: Path) -> Volume:
    from highdicom import Image

    if "SharedFunctionalGroupsSequence" not in image.header:
        raise InputError(
            f"{image.path.name}: several frames without their positions; export single slices"
        )
    with PixelDecoder() as decoder:
        dataset = decoder.native(read_up_to_pixels(image.path), image.path.name)
    with refusing(image.path.name, "the frames make no regular volume"):
        # Real-world maps would change the units; display settings are not part of the values.
        volume = Image.from_dataset(dataset, copy=False).get_volume(
            apply_presentation_lut=False,
            apply_real_world_transform=False,
            rtol=SPACING_TOLERANCE,
            perpendicular_tol=TILT_TOLERANCE,
        )
    affine = LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]]  # highdicom orders slice, row, column
    data = np.asarray(volume.array, np.float32).transpose(2, 1, 0)
    return _volume(data, affine, [image.header], path, None, (image.path,))


def _volume(
    data: Float32Array,
    affine: Float64Array,
    headers: list[Dataset],
    path: Path,
    stored: Stored | None,
    files: tuple[Path, ...],
) -> Volume:
    """Volume with the modality and the unit of its values."""
    modality = headers[0].get("Modality")
    source = DicomSource(
        *(path, data.shape, stored, files),
        series_number=_text(headers[0], "SeriesNumber"),
        series_instance_uid=_text(headers[0], "SeriesInstanceUID"),
        sop_instance_uids=tuple(_text(header, "SOPInstanceUID") or "" for header in headers),
    )
    if modality == "PT":
        pet = pet_unit(headers)
        source = replace(source, no_suv=pet.no_suv)
        return Volume(data, affine, pet.unit, modality, source, pet.suv_per_unit)
    if modality == "CT":
        return Volume(data, affine, _ct_unit(headers[0]), modality, source)
    if modality == "MR":
        return Volume(data, affine, "a.u.", modality, source)
    unknown = modality in (None, "", "OT")  # OT is "other"
    return Volume(data, affine, modality=None if unknown else str(modality), source=source)


def _text(header: Dataset, keyword: str) -> str | None:
    value = header.get(keyword)
    return None if value in (None, "") else str(value)


def _common_stored(headers: list[Dataset]) -> Stored | None:
    """Number format common to all slices, or None if they differ or use tables."""
    kinds = {
        (
            int(header.get("BitsAllocated") or 0),
            int(header.get("PixelRepresentation") or 0),
            float(header.get("RescaleSlope") or 1),
            float(header.get("RescaleIntercept") or 0),
            "ModalityLUTSequence" in header,
        )
        for header in headers
    }
    bits, signed, slope, inter, table = kinds.pop()
    if kinds or table or bits not in (8, 16, 32):
        return None
    return Stored(np.dtype(f"{'i' if signed else 'u'}{bits // 8}"), slope, inter)


def _ct_unit(header: Dataset) -> str:
    # Enhanced files store the rescale type with each frame; for CT it is HU.
    rescaled = "RescaleIntercept" in header or "SharedFunctionalGroupsSequence" in header
    return "HU" if rescaled and header.get("RescaleType") in (None, "", "HU") else "a.u."
