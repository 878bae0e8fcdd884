"""Reading of DICOM series: slices in files, frames of an enhanced file, or tiles of a mosaic."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.archive import Unpacked
from restore_rwkv.io.dicom.files import (
    IDENTIFIERS,
    DicomImage,
    is_dicom,
    read_header,
    read_image,
    read_up_to_pixels,
    refusing,
    series_uid,
    sound,
)
from restore_rwkv.io.dicom.folder import find_files
from restore_rwkv.io.dicom.frames import frame_headers, require_one_stack, rescale_of
from restore_rwkv.io.dicom.geometry import Grid, series_grid
from restore_rwkv.io.dicom.mosaic import cut_tiles, is_mosaic, place_tiles
from restore_rwkv.io.dicom.pixels import PixelReader, check_declared
from restore_rwkv.io.dicom.series import FoundSeries, choose_series, drop_copies
from restore_rwkv.io.dicom.statements import findings_of
from restore_rwkv.io.dicom.suv import pet_unit
from restore_rwkv.io.findings import Finding
from restore_rwkv.io.stored import Float32Array, Stored
from restore_rwkv.io.volume import Source, Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_log = logging.getLogger(__name__)
_MOST_NEIGHBOURS = 200  # files beside a single slice that are searched for its series


@dataclass(frozen=True, eq=False)
class DicomSource(Source):
    """A DICOM series.

    Attributes:
        files: Its files in the order of the volume's slices; one file if it is multi-frame or a
            mosaic.
        no_suv: Why a PET's files give no SUV, in a few words; None where they do.
        series_number: SeriesNumber, as text; None where the files have none.
        series_instance_uid: SeriesInstanceUID; None where the files have none.
        sop_instance_uids: SOPInstanceUID of each file, "" where it has none.
        tilt: Angle between the stack and the normal of its slices (gantry tilt), in degrees; 0.0
            below 2.6. With a tilt, the affine shears: its third column is not perpendicular to the
            slices.
        frames: Frame of the file, from 0, for each slice of the volume; empty for classic files.
        mosaic: Whether the slices are tiles of one image.
        unpacked: Keeps the files of an archive for as long as this object lives; else None.
    """

    files: tuple[Path, ...]
    no_suv: str | None = None
    series_number: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uids: tuple[str, ...] = ()
    tilt: float = 0.0
    frames: tuple[int, ...] = ()
    mosaic: bool = False
    unpacked: Unpacked | None = None


@dataclass(frozen=True, eq=False)
class _Stack:
    """The slices of a volume, sorted.

    Attributes:
        data: (columns, rows, slices).
        grid: Where they lie.
        headers: One for each slice, sorted.
        images: The files, sorted as the slices; one if it holds them all.
        frames: Frame of its file for each slice; empty for classic files and mosaics.
        mosaic: Whether the slices are tiles of one image.
    """

    data: Float32Array
    grid: Grid
    headers: Sequence[Dataset]
    images: Sequence[DicomImage]
    frames: tuple[int, ...] = ()
    mosaic: bool = False


def read_dicom(path: Path, *, series: int | str | None = None) -> Volume:
    """Read a DICOM series from a folder at any depth, a DICOMDIR, a zip archive, or one file.

    Data axes are (column, row, slice): axis 0 runs along a row of pixels (first three numbers of
    ImageOrientationPatient), axis 1 down a column (last three), axis 2 along the cross product of
    both. The affine is converted from the LPS of DICOM to RAS+. The geometry is taken from the
    position and orientation of each slice, never from file names, instance numbers or slice
    thickness; a stack with a tilted gantry keeps it (see `DicomSource.tilt`).
    Values are rescaled slice by slice; display settings (window, inversion) are not applied.

    Args:
        path: Folder or file.
        series: SeriesNumber or SeriesInstanceUID, for a path with several series.

    Returns:
        CT in HU, PET in Bq/ml, SUV (Units GML) or a.u., MR in a.u.

    Raises:
        InputError: No DICOM images, several series, colour images, broken geometry (see
            ``series_grid``), an unsafe archive, or pixel data that cannot be decoded.
    """
    with sound(path.name):
        found = find_files(path, read_image)
        return _read_images(choose_series(found, series, path.name), path, found.unpacked)


def read_series(found: FoundSeries, path: Path) -> Volume:
    """Read a series that `find_series` has found below a path; otherwise as `read_dicom`."""
    return read_files(found.files, path, found.unpacked)


def read_files(files: Sequence[Path], path: Path, unpacked: Unpacked | None = None) -> Volume:
    """Read the series that some files below a path make up; otherwise as `read_dicom`."""
    with sound(path.name):
        images = [DicomImage(file, read_header(file)) for file in files]
        images = [image for image in images if "Rows" in image.header]
        return _read_images(images, path, unpacked)


def _read_images(images: list[DicomImage], path: Path, unpacked: Unpacked | None) -> Volume:
    chosen = drop_copies(images, path.name)
    _report_missing(chosen, path.name)
    for image in chosen:
        grey = str(image.header.get("PhotometricInterpretation")).startswith("MONOCHROME")
        if not grey or image.header.get("SamplesPerPixel", 1) != 1:
            what = (
                "a colour image"
                if "PhotometricInterpretation" in image.header
                else ("PhotometricInterpretation is missing, so it may be one in colour")
            )
            raise InputError(f"{image.path.name}: {what}; give a series of grey images")
        if _frames(image) > 1 and len(chosen) > 1:
            raise InputError(
                f"{image.path.name}: one of several multi-frame files in its series; "
                "give only this file"
            )
        if int(image.header.get("InConcatenationTotalNumber") or 1) > 1:
            raise InputError(
                f"{image.path.name}: one part of an image that was cut into several "
                "(a concatenation); export it as one file"
            )
    with PixelReader() as pixels:
        if any(is_mosaic(image.header) for image in chosen):
            stack = _read_mosaic(chosen, pixels)
        else:
            stack = _read_frames(chosen, path, pixels) or _read_slices(chosen, path, pixels)
    if stack.grid.tilt:
        _log.info("%s: a stack tilted by %.1f degrees, kept", path.name, stack.grid.tilt)
    return _volume(stack, path, unpacked)


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


def _read_slices(images: Sequence[DicomImage], path: Path, pixels: PixelReader) -> _Stack:
    if _frames(images[0]) > 1:
        raise InputError(
            f"{images[0].path.name}: several frames without their positions; export single slices"
        )
    names = [image.path.name for image in images]
    grid = series_grid([image.header for image in images], names, path.name)
    images = [images[i] for i in grid.order]
    data = _room_for(grid, len(images), images)
    for k, image in enumerate(images):
        data[..., k] = _read_pixels(image.path, (grid.rows, grid.columns), pixels).T
    return _Stack(data, grid, [image.header for image in images], images)


def _read_frames(images: Sequence[DicomImage], path: Path, pixels: PixelReader) -> _Stack | None:
    """Slices of an enhanced file, or of several with one frame each; None for classic files."""
    slices: list[tuple[DicomImage, int, Dataset]] = []
    for image in images:
        headers = frame_headers(image)
        if headers is None:
            return None
        require_one_stack(headers, image.path.name)
        slices += [(image, i, header) for i, header in enumerate(headers)]
    several = len(images) > 1
    names = [image.path.name if several else f"frame {i + 1}" for image, i, _ in slices]
    where = path.name if several or path.is_dir() else images[0].path.name
    grid = series_grid([header for _, _, header in slices], names, where)
    slices = [slices[i] for i in grid.order]
    data = _room_for(grid, len(slices), images)
    stored: npt.NDArray[np.generic] | None = None
    for k, (image, i, header) in enumerate(slices):
        if stored is None or several:
            stored = pixels.stored(read_up_to_pixels(image.path), image.path.name)
            stored = stored.reshape(-1, *stored.shape[-2:])
            _require_shape(stored, (_frames(image), grid.rows, grid.columns), image.path.name)
        slope, intercept = rescale_of(header)
        with np.errstate(over="ignore"):  # Volume raises an error for infinity
            data[..., k] = (stored[i].astype(np.float64) * slope + intercept).T
    files = [image for image, _, _ in slices] if several else images
    return _Stack(data, grid, [h for _, _, h in slices], files, tuple(i for _, i, _ in slices))


def _room_for(grid: Grid, count: int, images: Sequence[DicomImage]) -> Float32Array:
    """Empty array for the values of a stack, whose files are long enough to hold them."""
    for image in images:
        check_declared(image.header, image.path)
    return np.empty((grid.columns, grid.rows, count), np.float32, order="F")


def _read_mosaic(images: Sequence[DicomImage], pixels: PixelReader) -> _Stack:
    if len(images) > 1:
        raise InputError(
            f"{images[0].path.name}: one of {len(images)} mosaics, each a volume of a time series; "
            "give one of the files"
        )
    mosaic = place_tiles(images[0])
    name = images[0].path.name
    names = [f"tile {i + 1}" for i in range(len(mosaic.headers))]
    grid = series_grid(mosaic.headers, names, name)
    shape = (grid.rows * mosaic.side, grid.columns * mosaic.side)
    tiles = cut_tiles(_read_pixels(images[0].path, shape, pixels), mosaic)
    data = np.asfortranarray(tiles[list(grid.order)].transpose(2, 1, 0))
    return _Stack(data, grid, [mosaic.headers[i] for i in grid.order], images, mosaic=True)


def _read_pixels(path: Path, shape: tuple[int, int], pixels: PixelReader) -> Float32Array:
    """Return the values of one image, rows by columns."""
    from pydicom.pixels.processing import apply_modality_lut

    dataset = read_up_to_pixels(path)
    stored = pixels.stored(dataset, path.name)
    with refusing(path.name, "the pixel data cannot be scaled"), np.errstate(over="ignore"):
        # Volume raises an error for values that overflow to infinity.
        if "ModalityLUTSequence" in dataset:
            values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
        else:  # which pydicom leaves out where one of the two is missing
            slope, intercept = rescale_of(dataset)
            values = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
    _require_shape(values, shape, path.name)
    return values


def _require_shape(values: npt.NDArray[np.generic], shape: tuple[int, ...], name: str) -> None:
    if values.shape != shape:
        raise InputError(
            f"{name}: pixel data of shape {values.shape} does not fit its header; export it again"
        )


def _volume(stack: _Stack, path: Path, unpacked: Unpacked | None) -> Volume:
    """Volume with the modality and the unit of its values."""
    headers, affine, first = stack.headers, stack.grid.affine, stack.headers[0]
    modality = first.get("Modality")
    source = DicomSource(
        *(path, stack.data.shape, _common_stored(headers)),
        files=tuple(image.path for image in stack.images),
        series_number=_text(first, "SeriesNumber"),
        series_instance_uid=_text(first, "SeriesInstanceUID"),
        sop_instance_uids=tuple(_text(i.header, "SOPInstanceUID") or "" for i in stack.images),
        tilt=stack.grid.tilt,
        frames=stack.frames,
        mosaic=stack.mosaic,
        unpacked=unpacked,
        findings=(*_stated(stack), *_one_slice(stack)),
    )
    if modality == "PT":
        pet = pet_unit(headers)
        source = replace(source, no_suv=pet.no_suv)
        return Volume(stack.data, affine, pet.unit, modality, source, pet.suv_per_unit)
    if modality == "CT":
        return Volume(stack.data, affine, _ct_unit(first), modality, source)
    if modality == "MR":
        return Volume(stack.data, affine, "a.u.", modality, source)
    unknown = modality in (None, "", "OT")  # OT is "other"
    return Volume(stack.data, affine, modality=None if unknown else str(modality), source=source)


def _stated(stack: _Stack) -> tuple[Finding, ...]:
    """What the headers say against restoring the image."""
    with refusing(stack.images[0].path.name, "the header is damaged"):
        return findings_of(stack.headers)


def _one_slice(stack: _Stack) -> tuple[Finding, ...]:
    """Whether one slice was given of which the files say that it has neighbours."""
    if stack.data.shape[2] > 1:
        return ()
    header, path = stack.headers[0], stack.images[0].path
    uid = _text(header, "SeriesInstanceUID")
    count = _text(header, "ImagesInAcquisition") or ""
    if uid and any(series_uid(file) == uid for file in _beside(path)):
        what = "one slice of a series whose other files lie beside it"
    elif count.isdecimal() and int(count) > 1:
        what = f"one slice of an acquisition of {int(count)}"
    else:
        return ()
    return (Finding("doubtful", "one-slice", f"{what}; give the folder of the series"),)


def _beside(path: Path) -> list[Path]:
    """Other DICOM files in the folder of a file, those next to it first; not more than a few."""
    files = sorted(file for file in path.parent.iterdir() if file.is_file())
    place = bisect_left(files, path)
    near = sorted(range(len(files)), key=lambda i: abs(i - place))[:_MOST_NEIGHBOURS]
    return [files[i] for i in near if not files[i].samefile(path) and is_dicom(files[i])]


def _text(header: Dataset, keyword: str) -> str | None:
    value = header.get(keyword)
    return None if value in (None, "") else str(value)


def _common_stored(headers: Sequence[Dataset]) -> Stored | None:
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
    rescaled = header.get("RescaleIntercept") is not None
    return "HU" if rescaled and header.get("RescaleType") in (None, "", "HU") else "a.u."
