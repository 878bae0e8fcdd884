"""Files of a DICOM series: their selection, and robust reading of their headers."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restore_rwkv.errors import InputError
from restore_rwkv.io.decoding import DECODING_ERRORS
from restore_rwkv.io.dicom.suv import SUV_FIELDS
from restore_rwkv.io.volume import one_line

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset
    from pydicom.tag import BaseTag

_log = logging.getLogger(__name__)
_PIXEL_DATA = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_AFTER_PIXELS = {0xFFFAFFFA, 0xFFFCFFFC}  # signatures and padding may follow the pixels
_NUMBERS = (
    "BitsAllocated",
    "Columns",
    "NumberOfFrames",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
    "SliceThickness",
    "SpacingBetweenSlices",
)
IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_OTHERS = (
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "Modality",
    "ModalityLUTSequence",
    "PhotometricInterpretation",
    "PixelSpacing",
    "RescaleType",
    "SeriesDescription",
    "SeriesNumber",
    "SharedFunctionalGroupsSequence",
)


@dataclass(frozen=True, eq=False)
class DicomImage:
    """A file and the part of its header that is needed to sort and place the image."""

    path: Path
    header: Dataset


@contextmanager
def refusing(name: str, problem: str) -> Iterator[None]:
    """Turn errors of pydicom, highdicom and the decoders into an InputError."""
    from pydicom.errors import BytesLengthException

    try:
        yield
    except (*DECODING_ERRORS, BytesLengthException) as error:
        raise InputError(
            f"{name}: {problem} ({one_line(error)}); copy or export it again"
        ) from error


def is_dicom(path: Path) -> bool:
    """Whether a file has the DICOM signature, or cannot be opened.

    Reading the latter then reports why it cannot be opened, instead of skipping it silently.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return True


def patient_id(path: Path) -> str:
    """PatientID of a DICOM file without surrounding blanks; empty if it has none.

    Raises:
        InputError: The file cannot be read, or its header is damaged.
    """
    from pydicom import dcmread

    with refusing(path.name, "the DICOM header is damaged"):
        header = dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(header.get("PatientID") or "").strip()


def find_images(path: Path) -> list[DicomImage]:
    """Return the DICOM images in a folder (not its subfolders), or the one file.

    Raises:
        InputError: There are no images, or a header is damaged.
        OSError: A file cannot be opened.
    """
    if not path.is_dir():
        if not is_dicom(path):
            raise InputError(f"{path.name}: not a DICOM file; export it again")
        files = [path]
    else:
        candidates = sorted(file for file in path.iterdir() if file.is_file())
        if not any(path.iterdir()):
            raise InputError(f"{path.name}: the folder is empty; give one with a DICOM series")
        files = [file for file in candidates if is_dicom(file)]
    images = [DicomImage(file, _read_header(file)) for file in files]
    images = [image for image in images if "Rows" in image.header]
    if not images:
        raise InputError(
            f"{path.name}: no DICOM images here; give the folder that directly contains the series"
        )
    if path.is_dir() and len(images) < len(candidates):
        _log.warning(
            "%s: ignored %d file(s) that are not DICOM images",
            path.name,
            len(candidates) - len(images),
        )
    return images


def _read_header(path: Path) -> Dataset:
    from pydicom import dcmread

    # Opened first: a file that cannot be opened is not a damaged file.
    with path.open("rb") as stream, refusing(path.name, "the DICOM header is damaged"):
        header = dcmread(
            stream,
            stop_before_pixels=True,
            specific_tags=[*_NUMBERS, *IDENTIFIERS, *_OTHERS, *SUV_FIELDS],
        )
        for keyword in (*_NUMBERS, *IDENTIFIERS, *_OTHERS):
            header.get(keyword)  # pydicom decodes an element at its first access
        for keyword in _NUMBERS:
            float(header.get(keyword) or 0)  # refuses lists
    return header


def one_series(images: list[DicomImage], series: int | str | None, where: str) -> list[DicomImage]:
    """Return the images of the only series, or of the one with this number or UID.

    Raises:
        InputError: Several series match, or none.
    """
    groups: dict[str, list[DicomImage]] = defaultdict(list)
    for image in images:
        groups[str(image.header.get("SeriesInstanceUID") or "")].append(image)
    names = {uid: _describe(uid, group) for uid, group in groups.items()}
    if series is not None:
        groups = {
            uid: group
            for uid, group in groups.items()
            if str(series) in (uid, str(group[0].header.get("SeriesNumber")))
        }
    listing = "; ".join(names[uid] for uid in groups or names)
    if not groups:
        raise InputError(f"{where}: none of its series is {series}; choose one of {listing}")
    if len(groups) > 1:
        raise InputError(
            f"{where}: {len(groups)} series, {listing}; give one folder for each, or choose one "
            "by series=NUMBER (or its UID where the number is not enough)"
        )
    return next(iter(groups.values()))


def _describe(uid: str, group: list[DicomImage]) -> str:
    header = group[0].header
    return (
        f"{header.get('SeriesNumber') or '?'} ({header.get('Modality') or '?'} "
        f"{header.get('SeriesDescription') or 'without description'}, {len(group)} files, "
        f"UID {uid or 'missing'})"
    )


def read_up_to_pixels(path: Path) -> FileDataset:
    """Read a file up to its pixel data; some exports append invalid data after it."""
    from pydicom.filereader import read_partial

    seen = False
    after: list[int] = []

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal seen
        if seen:
            after.append(int(tag))
            return True
        seen = int(tag) in _PIXEL_DATA
        return False

    with refusing(path.name, "the DICOM file is damaged"), path.open("rb") as stream:
        dataset = read_partial(stream, stop_when=stop)
    if after and after[0] not in _AFTER_PIXELS:
        _log.warning("%s: ignored trailing data after the pixels", path.name)
    return dataset
