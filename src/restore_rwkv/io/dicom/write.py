"""Writing of a restored volume as a DICOM series that is derived from the one it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.io.dicom.derived import (
    Derivation,
    NewSeries,
    derivation_item,
    mark_image,
    new_series,
    parts,
    reference,
)
from restore_rwkv.io.dicom.encoding import (
    Padding,
    StoredArray,
    largest_value,
    mark_lossy,
    pet_slope,
    read_padding,
    set_pixels,
    to_stored,
)
from restore_rwkv.io.dicom.enhanced import (
    drop_from_frames,
    mark_frames,
    set_finer_frames,
    set_frame_slopes,
    share_rescale,
)
from restore_rwkv.io.dicom.original import Original, read_original
from restore_rwkv.io.dicom.place import set_finer_grid
from restore_rwkv.io.stored import Float32Array
from restore_rwkv.io.volume import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_REAL_WORLD = "RealWorldValueMappingSequence"


@dataclass(frozen=True, kw_only=True)
class WrittenSeries:
    """A derived series as it was written.

    Attributes:
        series_instance_uid: Its SeriesInstanceUID.
        series_number: Its SeriesNumber.
        sop_instance_uids: SOPInstanceUID of each file.
        files: Names of its files in the order of the slices; one if it is multi-frame.
        clipped: Voxels whose value was beyond what the files can store.
    """

    series_instance_uid: str
    series_number: int
    sop_instance_uids: tuple[str, ...]
    files: tuple[str, ...]
    clipped: int


def check_dicom_output(volume: Volume) -> None:
    """Check before any computation that `write_dicom` can write a volume.

    Args:
        volume: The image that was read, or one on the finer grid of the result.

    Raises:
        InputError: As for `write_dicom`.
    """
    read_original(volume)


def write_dicom(volume: Volume, folder: Path, derivation: Derivation) -> WrittenSeries:
    """Write a volume as a series that is derived from the one it was read from.

    The series has the form of its source: one file a slice, or one enhanced file. Each slice keeps
    its own position, so that a tilted stack is exact. In the plane of the slices, the grid may be
    finer over the same field. CT and MR keep slope, intercept and bits, and values beyond them are
    clipped; PET gets new slopes, so that none is. Files are uncompressed.

    Args:
        volume: Values in the unit of its source, which is a `DicomSource`.
        folder: Where to write, an existing and empty folder.
        derivation: What was done.

    Returns:
        What was written, with the number of voxels that were clipped.

    Raises:
        InputError: The volume is not from DICOM or not on the grid of its source (or a finer one),
            files have gone or changed, identifiers are missing, the images are not CT, MR or PET,
            or their pixels cannot be written in the way in which the source stores them.
        OSError: The disk is full, or the folder cannot be written to.
    """
    original = read_original(volume)
    series = new_series(original.headers, derivation, finer=original.finer)
    with original.pixels:
        if original.frames is not None:
            clipped = [_write_frames(volume, folder, original, series)]
        else:
            numbers = _instance_numbers(original)
            clipped = []
            for k, header in enumerate(original.headers):
                header.InstanceNumber = numbers[k]
                clipped.append(_write_slice(volume.data[..., k].T, k, folder, original, series))
    return WrittenSeries(
        series_instance_uid=series.uid,
        series_number=series.number,
        sop_instance_uids=tuple(str(header.SOPInstanceUID) for header in original.headers),
        files=tuple(_file_name(k) for k in range(len(original.headers))),
        clipped=sum(clipped),
    )


def _file_name(k: int) -> str:
    return f"IMG{k + 1:05d}.dcm"


def _instance_numbers(original: Original) -> list[int]:
    """Keep the numbers of the source where they tell its images apart."""
    given = [str(header.get("InstanceNumber")) for header in original.headers]
    if len(set(given)) < len(given) or not all(text.isdecimal() for text in given):
        return list(range(1, len(given) + 1))
    return [int(text) for text in given]


def _write_slice(
    values: Float32Array, k: int, folder: Path, original: Original, series: NewSeries
) -> int:
    """Write slice k; return how many of its pixels were clipped."""
    header, kind = original.headers[k], original.formats[k]
    padding = read_padding(original.files[k], kind, values.shape, original.pixels)
    rescale = original.rescale[k]
    if original.pet:
        slope = pet_slope(largest_value(values, padding), kind)
        header.RescaleSlope, header.RescaleIntercept = slope, "0"
        rescale = (float(slope), 0.0)
        if _REAL_WORLD in header:  # maps the stored numbers of the former slope
            delattr(header, _REAL_WORLD)
    pixels, clipped = to_stored(values, rescale, kind, padding)
    mark_lossy(header, original.syntaxes[k], original.files[k])
    set_pixels(header, pixels)
    if original.finer:
        set_finer_grid(header, original.places[k], (values.shape[1], values.shape[0]))
    mark_image(header, series, k)
    second = "PRIMARY" if original.pet else "SECONDARY"
    header.ImageType = ["DERIVED", second, *parts(header, "ImageType")[2:]]
    sources = [reference(source) for source in series.used(k)]
    header.update(derivation_item(series, sources))
    _save(header, folder / _file_name(k))
    return clipped


def _write_frames(volume: Volume, folder: Path, original: Original, series: NewSeries) -> int:
    """Write an enhanced file; return how many of its pixels were clipped."""
    header, kind, frames = original.headers[0], original.formats[0], original.frames
    assert frames is not None
    x, y, count = volume.data.shape
    found = read_padding(original.files[0], kind, (count, y, x), original.pixels)
    padding = [None if found is None else found.frame(i) for i in frames]
    rescale = original.rescale
    if original.pet:
        rescale = _new_frame_slopes(volume, original, padding)
    pixels: StoredArray = np.empty((count, y, x), kind.dtype)
    clipped = 0
    for k, frame in enumerate(frames):
        pixels[frame], more = to_stored(volume.data[..., k].T, rescale[k], kind, padding[k])
        clipped += more
    mark_lossy(header, original.syntaxes[0], original.files[0])
    set_pixels(header, pixels)
    if original.finer:
        in_file = [place for _, place in sorted(zip(frames, original.places, strict=True))]
        set_finer_frames(header, in_file, volume.data.shape)
        drop_from_frames(header, ("FrameDisplayShutterSequence",))
    mark_image(header, series, 0)
    mark_frames(header, series)
    _save(header, folder / _file_name(0))
    return clipped


def _new_frame_slopes(
    volume: Volume, original: Original, padding: list[Padding | None]
) -> list[tuple[float, float]]:
    """Give an enhanced PET new slopes, one for all frames where its source has one.

    SimpleITK reads slopes that differ between frames wrongly, so they are not introduced.
    """
    header, kind, frames = original.headers[0], original.formats[0], original.frames
    assert frames is not None
    largest = [largest_value(volume.data[..., k].T, part) for k, part in enumerate(padding)]
    if share_rescale(header):
        slopes = [pet_slope(max(largest), kind)] * len(largest)
        set_frame_slopes(header, slopes[:1])
    else:
        slopes = [pet_slope(value, kind) for value in largest]
        in_file = [slope for _, slope in sorted(zip(frames, slopes, strict=True))]
        set_frame_slopes(header, in_file)
    drop_from_frames(header, (_REAL_WORLD,))
    if _REAL_WORLD in header:
        delattr(header, _REAL_WORLD)
    return [(float(slope), 0.0) for slope in slopes]


def _save(header: Dataset, path: Path) -> None:
    from pydicom import dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta = meta
    header.preamble = bytes(128)
    with path.open("xb") as stream:
        dcmwrite(stream, header, enforce_file_format=True, implicit_vr=False, little_endian=True)
    del header.PixelData  # a series is not held in memory twice
