"""How a DICOM file is known by its first bytes, with the preamble of the standard or without it."""

from __future__ import annotations

import re
import struct

HEAD = 4096
"""Bytes from the start of a file that `has_preamble` and `may_be_dicom` need."""

_CLASSES = {0x00020002, 0x00080016}  # MediaStorageSOPClassUID, SOPClassUID
_UID = re.compile(rb"1\.2\.[0-9.]{6,60}[\0 ]?")
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT"}
_SHORT |= {b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}


def has_preamble(head: bytes) -> bool:
    """Whether the start of a file has DICOM's preamble and signature."""
    return head[128:132] == b"DICM"


def may_be_dicom(head: bytes) -> bool:
    """Whether a file that starts so is DICOM, also as a data set only, without a preamble.

    A data set is known by its first elements: of group 2 or 8, in rising order, up to the class of
    the object, whose value is a UID. No text, picture, NIfTI or archive begins like this.

    Args:
        head: The first `HEAD` bytes, fewer of shorter files.
    """
    return has_preamble(head) or _starts_data_set(head)


def _starts_data_set(head: bytes) -> bool:
    explicit = head[4:6] in _LONG | _SHORT
    offset, last = 0, -1
    while offset + 12 <= len(head):
        group, number = struct.unpack_from("<HH", head, offset)
        tag = group << 16 | number
        if group not in (2, 8) or tag <= last:
            return False
        if not explicit:
            (length,), start = struct.unpack_from("<I", head, offset + 4), offset + 8
        elif head[offset + 4 : offset + 6] in _LONG:
            (length,), start = struct.unpack_from("<I", head, offset + 8), offset + 12
        elif head[offset + 4 : offset + 6] in _SHORT:
            (length,), start = struct.unpack_from("<H", head, offset + 6), offset + 8
        else:
            return False
        if tag in _CLASSES:
            value = head[start : start + length]
            return len(value) == length and _UID.fullmatch(value) is not None
        offset, last = start + length, tag
    return False
