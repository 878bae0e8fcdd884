"""The series that a volume was read from: checked before another is derived from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.derived import is_pet
from restore_rwkv.io.dicom.encoding import PixelFormat, pixel_format
from restore_rwkv.io.dicom.enhanced import frame_places, frame_rescale, frame_thickness
from restore_rwkv.io.dicom.files import IDENTIFIERS, refusing, sound, transfer_syntax
from restore_rwkv.io.dicom.pixels import PixelReader
from restore_rwkv.io.dicom.place import Place, check_places, is_finer, place_of
from restore_rwkv.io.dicom.read import DicomSource
from restore_rwkv.io.dicom.strip import strip
from restore_rwkv.io.volume import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

CLASSIC = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.128",  # PET
)
"""SOP classes with one slice a file, of which a derived series can be written."""

ENHANCED = (
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.130",
)
"""SOP classes with all frames in one file, of which a derived series can be written."""

_DECODED_LATER = (
    "ContributingEquipmentSequence",
    "ImageType",
    "InstanceNumber",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "ReferencedSeriesSequence",
    "SeriesDescription",
    "SeriesNumber",
    "TimezoneOffsetFromUTC",
)


@dataclass(frozen=True, eq=False)
class Original:
    """A series to derive another one from.

    Attributes:
        files: Its files in the order of the volume's slices; one file if it is multi-frame.
        headers: Their headers without pixels, private elements and what a derived image drops.
        syntaxes: Transfer syntax of each file.
        formats: How the pixels of each file are stored.
        places: Where each slice lies, in the order of the volume.
        rescale: Slope and intercept of each slice, in the order of the volume.
        frames: Enhanced: the frame of each slice, counted from 0; None for one file a slice.
        finer: Whether the volume has a finer grid.
        pet: Whether it is PET.
        thickness: Of the slices, in mm; None if not stated.
        pixels: Reads the pixels of the files.
    """

    files: tuple[Path, ...]
    headers: list[Dataset]
    syntaxes: tuple[str, ...]
    formats: list[PixelFormat]
    places: list[Place]
    rescale: list[tuple[float, float]]
    frames: tuple[int, ...] | None
    finer: bool
    pet: bool
    thickness: float | None
    pixels: PixelReader = field(default_factory=PixelReader)


def read_original(volume: Volume) -> Original:
    """Read the headers of the series that a volume came from, and check all that a writer needs.

    Raises:
        InputError: The volume is not from DICOM or not on the grid of its source (or a finer one),
            files have gone or changed, identifiers are missing, the images are not CT, MR or PET,
            or their pixels cannot be written in the way in which the source stores them.
    """
    with sound(volume.name):
        return _read_original(volume)


def _read_original(volume: Volume) -> Original:
    source = volume.source
    if not isinstance(source, DicomSource) or volume.affine is None:
        raise InputError(
            f"{volume.name}: not read from DICOM, so no series can be derived from it; "
            "write .nii.gz"
        )
    if source.mosaic or (source.frames and len(source.files) > 1):
        what = "tiles of a mosaic" if source.mosaic else "frames of several files"
        raise InputError(
            f"{volume.name}: its slices are {what}, of which no derived series is written; "
            "write .nii.gz"
        )
    files = [_read_header(path) for path in source.files]
    uids = tuple(str(header.get("SOPInstanceUID") or "") for header in files)
    if uids != source.sop_instance_uids:
        raise InputError(f"{volume.name}: its files have changed since they were read; read again")
    headers: list[Dataset] = list(files)
    names = [path.name for path in source.files]
    many = _check_kind(headers, volume.name)
    for header, name in zip(headers, names, strict=True):
        _check_header(header, name, frames=many)
    formats = [pixel_format(*pair) for pair in zip(headers, names, strict=True)]
    frames = source.frames if many else None
    where = names[0] if many else volume.name
    places, rescale = _slices(headers, frames, where)
    check_places(volume, places)
    finer = is_finer(volume, places[0])
    if finer:
        for header in headers:
            strip(header, keep_pixel_grid=False)
    return Original(
        files=source.files,
        headers=headers,
        syntaxes=tuple(transfer_syntax(file) for file in files),
        formats=formats,
        places=places,
        rescale=rescale,
        frames=frames,
        finer=finer,
        pet=is_pet(headers[0]),
        thickness=frame_thickness(headers[0]) if many else _number(headers[0], "SliceThickness"),
    )


def _slices(
    headers: list[Dataset], frames: tuple[int, ...] | None, where: str
) -> tuple[list[Place], list[tuple[float, float]]]:
    """Return place and rescale of each slice of a volume."""
    with refusing(where, "position, orientation, pixel spacing or rescale is missing or invalid"):
        if frames is not None:
            in_file = frame_places(headers[0], where)
            places = [in_file[i] for i in frames]
            rescale = [frame_rescale(headers[0], i) for i in frames]
            if any("RescaleSlope" in header or "RescaleIntercept" in header for header in headers):
                raise InputError(
                    f"{where}: states a rescale outside the groups of its frames; write .nii.gz"
                )
        else:
            places = [place_of(*[header] * 4) for header in headers]
            rescale = [_rescale(header) for header in headers]
    if not all(np.isfinite(numbers).all() and numbers[0] for numbers in rescale):
        raise InputError(f"{where}: a rescale slope of 0 or not finite; write .nii.gz")
    return places, rescale


def _read_header(path: Path) -> FileDataset:
    from pydicom import dcmread

    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(
            f"{path.name}: cannot be read any more ({error.strerror}); a derived series needs the "
            "files of its source"
        ) from error
    with stream, refusing(path.name, "the DICOM header is damaged"):
        # Forced: the reader accepts files without the signature.
        header = dcmread(stream, stop_before_pixels=True, force=True)
        little_endian = header.original_encoding[1]
        strip(header)
        _check_usable(header)
    if not little_endian:
        raise InputError(
            f"{path.name}: big endian, which DICOM has retired; convert it first, dcmconv --write-"
            "xfer-little can"
        )
    return header


def _check_usable(header: Dataset) -> None:
    """Try now what would else fail after the restoration: to decode and to encode its values."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    for keyword in _DECODED_LATER:
        header.get(keyword)
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_dataset(stream, header)


def _check_kind(headers: Sequence[Dataset], where: str) -> bool:
    """Check identifiers and SOP class; return whether the image has its frames in one file."""
    missing = [key for key in IDENTIFIERS if any(not header.get(key) for header in headers)]
    if missing:
        raise InputError(
            f"{where}: {', '.join(missing)} missing, so that a derived series cannot refer to it; "
            "export it with its identifiers, or write .nii.gz"
        )
    for key in ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"):
        if len({str(header.get(key)) for header in headers}) > 1:
            raise InputError(f"{where}: {key} differs between its files; write .nii.gz")
    if max(Counter(str(header.SOPInstanceUID) for header in headers).values()) > 1:
        raise InputError(f"{where}: two of its files have one SOPInstanceUID; export it again")
    kind = headers[0].SOPClassUID
    if kind not in (*CLASSIC, *ENHANCED):
        raise InputError(
            f"{where}: a derived series can be written of CT, MR and PET images, classic or "
            f"enhanced, not of {kind.name}; write .nii.gz"
        )
    return kind in ENHANCED


def _check_header(header: Dataset, name: str, *, frames: bool) -> None:
    from pydicom.dataset import Dataset

    if "ModalityLUTSequence" in header:
        raise InputError(
            f"{name}: its values come from a table (ModalityLUTSequence), which restored values "
            "do not fit; write .nii.gz"
        )
    if not frames:
        return
    groups = header.get("PerFrameFunctionalGroupsSequence") or ()
    if len(groups) != int(header.get("NumberOfFrames") or 1):
        raise InputError(
            f"{name}: NumberOfFrames is {header.get('NumberOfFrames')}, but {len(groups)} frames "
            "are described; export it again"
        )
    if not header.get("SharedFunctionalGroupsSequence"):
        header.SharedFunctionalGroupsSequence = [Dataset()]


def _number(header: Dataset, keyword: str) -> float | None:
    value = header.get(keyword)
    return None if value is None else float(value)


def _rescale(header: Dataset) -> tuple[float, float]:
    slope = _number(header, "RescaleSlope")
    return 1.0 if slope is None else slope, _number(header, "RescaleIntercept") or 0.0
