"""Single DICOM files: whether they are DICOM, and robust reading of their headers and pixels."""

from __future__ import annotations

import logging
import os
import stat
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from restore_rwkv.errors import InputError, RestoreError
from restore_rwkv.io.decoding import DECODING_ERRORS
from restore_rwkv.io.dicom.signature import HEAD, has_preamble, may_be_dicom
from restore_rwkv.io.dicom.statements import STATEMENT_FIELDS
from restore_rwkv.io.dicom.suv import SUV_FIELDS
from restore_rwkv.io.volume import one_line

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset
    from pydicom.tag import BaseTag

_log = logging.getLogger(__name__)
_PIXEL_DATA = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_AFTER_PIXELS = {0xFFFAFFFA, 0xFFFCFFFC}  # signatures and padding may follow the pixels
# Headers of sound files need far less; elements of false length, and bombs, would need more.
_MOST_HEADER = 256 << 20
_MOST_INFLATED = 1 << 30
_MOST_RATIO, _SMALL = 200, 64 << 20  # of deflated data sets above a size
_DEFLATED = b"1.2.840.10008.1.2.1.99"
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
_OF_SERIES = ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality")
_OF_IMAGE = ("Rows", "Columns")
IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_OTHERS = (
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "Modality",
    "ModalityLUTSequence",
    "PhotometricInterpretation",
    "PixelSpacing",
    "RescaleType",
    "SeriesDescription",
    "SeriesNumber",
    "SharedFunctionalGroupsSequence",
)
# Not all are needed of every file, so they are not decoded while the header is read.
_DECODED_LATER: tuple[str | int, ...] = (
    "AcquisitionNumber",
    "AcquisitionTime",
    "DiffusionBValue",
    "EchoNumbers",
    "EchoTime",
    "ImagesInAcquisition",
    "InConcatenationTotalNumber",
    "InversionTime",
    "NominalPercentageOfCardiacPhase",
    "TemporalPositionIdentifier",
    "TriggerTime",
    0x00190010,
    0x0019100A,  # slices of a Siemens mosaic
    0x0019100C,  # b-value of Siemens
    0x00650010,
    0x00651050,  # tiles of a mosaic of United Imaging
)


@dataclass(frozen=True, eq=False, slots=True)
class Summary:
    """A file, and what tells its series: small, as an archive has millions of files.

    Attributes:
        path: of the file.
        series: SeriesInstanceUID; empty where the file has none, as the others.
        number: SeriesNumber.
        description: SeriesDescription.
        modality: DICOM's code, such as "CT".
        syntax: UID of the transfer syntax.
        kind: UID of the kind of object that the file says to hold.
        rows: number of rows; None without pixels.
        columns: number of columns; 0 without pixels.
    """

    path: Path
    series: str
    number: str
    description: str
    modality: str
    syntax: str
    kind: str
    rows: int | None
    columns: int


@dataclass(frozen=True, eq=False)
class DicomImage:
    """A file and the part of its header that is needed to sort and place the image."""

    path: Path
    header: FileDataset

    @property
    def summary(self) -> Summary:
        """What tells its series."""
        return _summarized(self.path, self.header)


@contextmanager
def refusing(name: str, problem: str) -> Iterator[None]:
    """Turn errors of pydicom, highdicom and the decoders into an InputError."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        yield
    except (*DECODING_ERRORS, BytesLengthException, InvalidDicomError, zlib.error) as error:
        raise InputError(
            f"{name}: {problem} ({one_line(error)}); copy or export it again"
        ) from error


@contextmanager
def sound(name: str) -> Iterator[None]:
    """Turn what pydicom raises wherever a damaged element is first used into an InputError."""
    from pydicom.errors import BytesLengthException

    try:
        yield
    except (RestoreError, OSError):
        raise
    except (*DECODING_ERRORS, BytesLengthException) as error:
        raise InputError(
            f"{name}: a header is damaged ({one_line(error)}); copy it again"
        ) from error


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, with a preamble or without one, or cannot be opened.

    Reading the latter then reports why it cannot be opened, instead of skipping it silently. Pipes,
    sockets and devices are not opened, and are not DICOM.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode) and may_be_dicom(first_bytes(path))
    except OSError:
        return True


def first_bytes(path: Path) -> bytes:
    """Return the first `HEAD` bytes of a file.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        return stream.read(HEAD)


def patient_id(path: Path) -> str:
    """PatientID of a DICOM file without surrounding blanks; empty if it has none.

    Raises:
        InputError: The file cannot be read, or its header is damaged.
    """
    with refusing(path.name, "the DICOM header is damaged"):
        return str(_header(path, ["PatientID"]).get("PatientID") or "").strip()


def series_uid(path: Path) -> str:
    """SeriesInstanceUID of a DICOM file; empty if it has none or cannot be read."""
    try:
        return str(_header(path, ["SeriesInstanceUID"]).get("SeriesInstanceUID") or "")
    except (*DECODING_ERRORS, zlib.error):
        return ""


def read_header(path: Path) -> FileDataset:
    """Read what is needed of a header to sort, place and scale the image, and to tell its kind.

    Raises:
        InputError: The header is damaged.
        OSError: The file cannot be opened.
    """
    # Opened first: a file that cannot be opened is not a damaged file.
    with path.open("rb") as file, refusing(path.name, "the DICOM header is damaged"):
        decoded = (*_NUMBERS, *IDENTIFIERS, *_OTHERS)
        header = _parse(file, [*decoded, *SUV_FIELDS, *STATEMENT_FIELDS, *_DECODED_LATER])
        for keyword in decoded:
            header.get(keyword)  # pydicom decodes an element at its first access
        for keyword in _NUMBERS:
            float(header.get(keyword) or 0)  # refuses lists
    return header


def read_image(path: Path) -> DicomImage:
    """Read a file with what `read_header` keeps of it; errors as there."""
    return DicomImage(path, read_header(path))


def read_summary(path: Path) -> Summary:
    """Read what tells the series of a file; errors as `read_header`."""
    with path.open("rb") as file, refusing(path.name, "the DICOM header is damaged"):
        return _summarized(path, _parse(file, [*_OF_SERIES, *_OF_IMAGE]))


def _summarized(path: Path, header: FileDataset) -> Summary:
    values = (header.get(keyword) for keyword in _OF_SERIES)
    texts = ("" if value is None else str(value).strip() for value in values)
    series, number, description, modality = map(sys.intern, texts)  # one text for a whole series
    meta = getattr(header, "file_meta", None)
    kind = "" if meta is None else str(meta.get("MediaStorageSOPClassUID") or "")
    return Summary(
        path=path,
        series=series,
        number=number,
        description=description,
        modality=modality,
        syntax=sys.intern(transfer_syntax(header)),
        kind=sys.intern(kind),
        rows=int(header.get("Rows") or 0) if "Rows" in header else None,
        columns=int(header.get("Columns") or 0),
    )


def read_whole_header(path: Path) -> FileDataset:
    """Read all elements of a file before its pixels.

    Raises:
        InputError: The file cannot be read, or its header is damaged.
    """
    with refusing(path.name, "the DICOM header is damaged"):
        return _header(path, None)


def read_elements(path: Path, elements: Sequence[str]) -> FileDataset:
    """Read some elements of a file, by keyword; arguments and errors as `read_whole_header`."""
    with refusing(path.name, "the DICOM header is damaged"):
        return _header(path, elements)


def _header(path: Path, elements: Sequence[str | int] | None) -> FileDataset:
    with path.open("rb") as file:
        return _parse(file, elements)


def _parse(file: BinaryIO, elements: Sequence[str | int] | None) -> FileDataset:
    from pydicom import dcmread

    stream, bare = _checked(file)
    return dcmread(
        stream,
        stop_before_pixels=True,
        force=bare,
        specific_tags=None if elements is None else list(elements),
    )


def read_up_to_pixels(path: Path) -> FileDataset:
    """Read a file up to its pixel data; some exports append invalid data after it."""
    from pydicom.filereader import read_partial
    from pydicom.uid import UID

    seen = False
    after: list[int] = []

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal seen
        if seen:
            after.append(int(tag))
            return True
        seen = int(tag) in _PIXEL_DATA
        return False

    with refusing(path.name, "the DICOM file is damaged"), path.open("rb") as file:
        _, bare = _checked(file)
        dataset = read_partial(file, stop_when=stop, force=bare)
        dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax(dataset))
    if after and after[0] not in _AFTER_PIXELS:
        _log.warning("%s: ignored trailing data after the pixels", path.name)
    return dataset


def transfer_syntax(header: Dataset) -> str:
    """Transfer syntax UID of a file; of a data set only, the plain one that it was read by."""
    meta = getattr(header, "file_meta", None)
    given = str(meta.get("TransferSyntaxUID") or "") if meta is not None else ""
    if given:
        return given
    return "1.2.840.10008.1.2" if header.original_encoding[0] else "1.2.840.10008.1.2.1"


class _Limited:
    """A file of which pydicom can read only so much, by whatever lengths its elements declare."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream, self._left = stream, most
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        asked = size if 0 <= size <= self._left else self._left + 1
        data = self._stream.read(asked)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"longer than {_MOST_HEADER >> 20} MiB")
        return data


def _checked(file: BinaryIO) -> tuple[BinaryIO, bool]:
    """Return a stream whose header can be read safely, and whether it has no preamble.

    Raises:
        ValueError: A deflated data set would be too large.
    """
    head = file.read(HEAD)
    if _DEFLATED in head[:1024]:
        _require_small(file, head)
    file.seek(0)
    bare = not has_preamble(head) and may_be_dicom(head)
    if os.fstat(file.fileno()).st_size <= _MOST_HEADER:
        return file, bare
    return cast(BinaryIO, _Limited(file, _MOST_HEADER)), bare


def _require_small(file: BinaryIO, head: bytes) -> None:
    """Check the size of a deflated data set, which pydicom inflates as a whole."""
    if head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise ValueError("deflated, without the length of its first group")
    file.seek(144 + struct.unpack_from("<I", head, 140)[0])
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while block := file.read(1 << 20):
        while block:
            size += len(inflater.decompress(block, 1 << 20))
            block = inflater.unconsumed_tail
            packed = os.fstat(file.fileno()).st_size
            if size > _MOST_INFLATED or size > max(_SMALL, _MOST_RATIO * packed):
                raise ValueError(f"inflates to more than {size >> 20} MiB from {packed >> 10} KiB")
