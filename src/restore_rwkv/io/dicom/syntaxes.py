"""Transfer syntaxes of DICOM files: their names, and how their pixels are compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_ROOT = "1.2.840.10008.1.2"
EXPLICIT_BIG, DEFLATED = f"{_ROOT}.2", f"{_ROOT}.1.99"
_UNCOMPRESSED = {
    _ROOT: "Implicit VR Little Endian",
    f"{_ROOT}.1": "Explicit VR Little Endian",
    DEFLATED: "Deflated Explicit VR Little Endian",
    EXPLICIT_BIG: "Explicit VR Big Endian",
}
# Name, and the family of streams that its frames are.
_COMPRESSED = {
    f"{_ROOT}.5": ("RLE Lossless", "RLE"),
    f"{_ROOT}.4.50": ("JPEG Baseline", "JPEG"),
    f"{_ROOT}.4.51": ("JPEG Extended", "JPEG"),
    f"{_ROOT}.4.57": ("JPEG Lossless", "JPEG"),
    f"{_ROOT}.4.70": ("JPEG Lossless SV1", "JPEG"),
    f"{_ROOT}.4.80": ("JPEG-LS Lossless", "JPEG-LS"),
    f"{_ROOT}.4.81": ("JPEG-LS Near-Lossless", "JPEG-LS"),
    f"{_ROOT}.4.90": ("JPEG 2000 Lossless", "JPEG 2000"),
    f"{_ROOT}.4.91": ("JPEG 2000", "JPEG 2000"),
    f"{_ROOT}.4.201": ("High-Throughput JPEG 2000 Lossless", "JPEG 2000"),
    f"{_ROOT}.4.202": ("High-Throughput JPEG 2000 Lossless RPCL", "JPEG 2000"),
    f"{_ROOT}.4.203": ("High-Throughput JPEG 2000", "JPEG 2000"),
}
READABLE = (*_UNCOMPRESSED, *_COMPRESSED)
"""UIDs of the transfer syntaxes whose pixels can be read."""

_LOSSY = {f"{_ROOT}.4.{last}" for last in (50, 51, 81)}
_MAY_BE_LOSSY = {f"{_ROOT}.4.{last}" for last in (91, 203)}


def syntax_name(uid: str) -> str:
    """Return a short name of a transfer syntax, such as "JPEG 2000 Lossless"."""
    from pydicom.uid import UID

    known = _UNCOMPRESSED.get(uid) or _COMPRESSED.get(uid, ("",))[0]
    return known or str(UID(uid).name)


def is_uncompressed(uid: str) -> bool:
    """Whether pixels of a transfer syntax are stored as they are."""
    return uid in _UNCOMPRESSED


def family_of(uid: str) -> str | None:
    """RLE, JPEG, JPEG-LS or JPEG 2000; None for what is not compressed or cannot be decoded."""
    return _COMPRESSED[uid][1] if uid in _COMPRESSED else None


def is_lossless(uid: str) -> bool:
    """Whether no compression of a transfer syntax that can be read changes the pixels."""
    return uid in READABLE and uid not in _LOSSY | _MAY_BE_LOSSY


def may_be_inexact(uid: str, header: Dataset) -> bool:
    """Whether the compression of a file may have changed its pixels, as far as its header says.

    An image that was once lossy and is stored by a lossless syntax now is exact in that sense.
    """
    ever = str(header.get("LossyImageCompression") or "") == "01"
    return uid in _LOSSY or (uid in _MAY_BE_LOSSY and ever)
