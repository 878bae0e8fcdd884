"""DICOM files (PS3.10): their head, and what the node reads of them."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from restore_rwkv.errors import InputError
from restore_rwkv.io.decoding import DECODING_ERRORS
from restore_rwkv.io.dicom.files import read_elements

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

HEADER_FIELDS = (
    "BodyPartExamined",
    "DerivationDescription",
    "ImageType",
    "Manufacturer",
    "ManufacturerModelName",
    "Modality",
    "NumberOfFrames",
    "ProtocolName",
    "SeriesDescription",
    "SeriesNumber",
    "StationName",
    "StudyDescription",
)
"""Elements of an instance that rules look at; none of them names a patient by its definition."""

_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_COUNTS = ("NumberOfSeriesRelatedInstances", "NumberOfSlices", "SeriesType")
_PET = "1.2.840.10008.5.1.4.1.1.128"
_ONE_VOLUME = {"STATIC", "WHOLE BODY"}  # kinds of PET series, PS3.3 C.8.9.1.1.4
_PREAMBLE = bytes(128) + b"DICM"
_ORIGIN = b"restore-rwkv node, from "  # and the origin, in the preamble of a stored file
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_LONGEST_META = 1 << 16
_LONGEST_TEXT = 1024  # of an element of the header, which may be longer than the standard allows
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


class MismatchError(InputError):
    """The data set is of another SOP class or instance than its head says."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the node reads of a DICOM file.

    Attributes:
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        sop_instance_uid: SOPInstanceUID.
        sop_class_uid: SOPClassUID.
        transfer_syntax: UID of its transfer syntax.
        header: `HEADER_FIELDS` that are there and not empty; several values are joined by
            backslashes.
        announced: number of instances of its series where the header says it, else None.
    """

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax: str
    header: Mapping[str, str]
    announced: int | None


def read_head(stream: BinaryIO) -> bytes:
    """Read a DICOM file up to its data set.

    Returns:
        Preamble, signature and file meta information. The preamble is blank: it may hold the head
        of another format, such as that of a program.

    Raises:
        InputError: This is not the start of a DICOM file.
    """
    start = stream.read(144)
    if len(start) < 144 or start[128:132] != b"DICM" or start[132:140] != _GROUP_LENGTH:
        raise InputError("instance: not a DICOM file (PS3.10); send it again")
    (length,) = struct.unpack_from("<I", start, 140)
    meta = stream.read(min(length, _LONGEST_META + 1))
    if not 0 < len(meta) == length <= _LONGEST_META:
        raise InputError("instance: its file meta information is damaged; send it again")
    return _PREAMBLE + start[132:] + meta


def head_of(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, *, sender: str, receiver: str
) -> bytes:
    """Return preamble, signature and file meta information for a data set that was sent.

    Args:
        sop_class_uid: Of the instance.
        sop_instance_uid: Of the instance.
        transfer_syntax: In which it was sent.
        sender: AE title of the sender.
        receiver: AE title that it was sent to.

    Raises:
        InputError: One of the UIDs is not a UID.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.filewriter import write_file_meta_info

    from restore_rwkv.apps.node.negotiation import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION

    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = checked_uid(sop_class_uid, "SOPClassUID")
    meta.MediaStorageSOPInstanceUID = checked_uid(sop_instance_uid, "SOPInstanceUID")
    meta.TransferSyntaxUID = checked_uid(transfer_syntax, "TransferSyntaxUID")
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    meta.SendingApplicationEntityTitle = sender
    meta.ReceivingApplicationEntityTitle = receiver
    stream = io.BytesIO()
    write_file_meta_info(stream, meta)
    return _PREAMBLE + stream.getvalue()


def with_origin(head: bytes, origin: str) -> bytes:
    """Return a head whose preamble says who sent the file; `head` as from the functions above."""
    return (_ORIGIN + origin.encode()).ljust(128, b"\0")[:128] + head[128:]


def read_origin(path: Path) -> str:
    """Return who sent a stored file; "" where it does not say so."""
    with path.open("rb") as stream:
        preamble = stream.read(128)
    if not preamble.startswith(_ORIGIN):
        return ""
    return preamble[len(_ORIGIN) :].rstrip(b"\0").decode(errors="replace")


def read_facts(path: Path) -> Facts:
    """Read what the node needs of a DICOM file, without its pixels.

    Raises:
        MismatchError: Its file meta information names another instance than its data set.
        InputError: The file is damaged, or has no usable UIDs.
    """
    try:
        header = read_elements(path, [*_IDENTIFIERS, *HEADER_FIELDS, *_COUNTS])
    except InputError:  # its message may quote a value
        raise InputError("instance: its header is damaged; send it again") from None
    sop_class, instance, study, series = (
        checked_uid(_text(header, keyword), keyword) for keyword in _IDENTIFIERS
    )
    meta = header.file_meta
    for keyword, uid in (
        ("MediaStorageSOPClassUID", sop_class),
        ("MediaStorageSOPInstanceUID", instance),
    ):
        if _text(meta, keyword) != uid:
            raise MismatchError(
                f"instance: {keyword} is not that of its data set; send it with its own UIDs"
            )
    texts = {keyword: _text(header, keyword)[:_LONGEST_TEXT] for keyword in HEADER_FIELDS}
    return Facts(
        study_uid=study,
        series_uid=series,
        sop_instance_uid=instance,
        sop_class_uid=sop_class,
        transfer_syntax=checked_uid(_text(meta, "TransferSyntaxUID"), "TransferSyntaxUID"),
        header={keyword: text for keyword, text in texts.items() if text},
        announced=_announced(header),
    )


def checked_uid(text: str, keyword: str) -> str:
    """Return a UID; raise InputError where it is missing or not one (PS3.5, 9)."""
    if len(text) > 64 or not _UID.fullmatch(text):
        raise InputError(f"instance: {keyword} is missing or not a UID; send it with its own UIDs")
    return text


def _announced(header: Dataset) -> int | None:
    """How many instances the series has, where the header says so.

    ImagesInAcquisition is not asked: a series may have several acquisitions.
    """
    number = _number(header, "NumberOfSeriesRelatedInstances")
    kind = _text(header, "SeriesType").partition("\\")[0]
    if number is None and _text(header, "SOPClassUID") == _PET and kind in _ONE_VOLUME:
        number = _number(header, "NumberOfSlices")
    return number


def _number(header: Dataset, keyword: str) -> int | None:
    text = _text(header, keyword)
    return int(text) if re.fullmatch("[1-9][0-9]{0,8}", text) else None


def _text(header: Dataset, keyword: str) -> str:
    """Return the text of an element, "" where it is missing or cannot be decoded.

    It is decoded here, since pydicom quotes in warnings what it does not expect.
    """
    from pydicom.charset import decode_bytes

    raw = header.get_item(keyword)
    value = None if raw is None else raw.value
    if not isinstance(value, bytes):
        return "" if value is None else str(value)
    try:
        if raw.VR == "US":
            return str(int.from_bytes(value, "little"))
        encodings = header.original_character_set
        encodings = [encodings] if isinstance(encodings, str) else encodings
        text: str = decode_bytes(value, encodings, set())
    except DECODING_ERRORS:
        return ""
    return " ".join(text.replace("\0", " ").split())
