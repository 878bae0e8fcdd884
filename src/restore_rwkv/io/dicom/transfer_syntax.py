"""How the pixels of a DICOM file are stored: name, family of decoders, and loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_ROOT = "1.2.840.10008.1.2"
IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG = _ROOT, f"{_ROOT}.1", f"{_ROOT}.2"
UNCOMPRESSED = {
    IMPLICIT_LITTLE: "Implicit VR Little Endian",
    EXPLICIT_LITTLE: "Explicit VR Little Endian",
    f"{_ROOT}.1.99": "Deflated Explicit VR Little Endian",
    EXPLICIT_BIG: "Explicit VR Big Endian",
}
"""Names of the syntaxes whose pixels are not compressed, by UID."""

COMPRESSED = {
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
"""Name and family of decoders of the compressed syntaxes that can be decoded, by UID."""

_LOSSY = {f"{_ROOT}.4.50", f"{_ROOT}.4.51", f"{_ROOT}.4.81"}
_MAY_BE_LOSSY = {f"{_ROOT}.4.91", f"{_ROOT}.4.203"}


def transfer_syntax(dataset: Dataset) -> str:
    """Return the UID of the transfer syntax; where a file has none, by how its header was read."""
    meta = getattr(dataset, "file_meta", None)
    uid = str(meta.get("TransferSyntaxUID") or "") if meta is not None else ""
    if uid:
        return uid
    implicit, little = dataset.original_encoding
    if little is False:
        return EXPLICIT_BIG
    return EXPLICIT_LITTLE if implicit is False else IMPLICIT_LITTLE


def transfer_syntax_name(dataset: Dataset) -> str:
    """Return a short name of the transfer syntax, such as "JPEG 2000 Lossless"."""
    from pydicom.uid import UID

    uid = transfer_syntax(dataset)
    known = UNCOMPRESSED.get(uid) or COMPRESSED.get(uid, ("",))[0]
    return known or str(UID(uid).name)


def is_lossy(dataset: Dataset) -> bool:
    """Whether the pixels have ever been compressed with loss, as far as the header says."""
    flag = str(dataset.get("LossyImageCompression") or "")
    return flag == "01" or transfer_syntax(dataset) in _LOSSY


def stream_may_be_lossy(dataset: Dataset) -> bool:
    """Whether the present transfer syntax may have changed the pixels, as far as the header says.

    An image that was once lossy and is now stored by a lossless syntax is exact in that sense.
    """
    uid = transfer_syntax(dataset)
    return uid in _LOSSY or (uid in _MAY_BE_LOSSY and is_lossy(dataset))
