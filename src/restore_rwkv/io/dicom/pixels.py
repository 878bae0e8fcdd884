"""Stored pixel values of a DICOM file with any transfer syntax.

What decoders give is cut to the bits that the file stores, and its sign extended: bits above them
hold overlays, or are lost by compression with fewer bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError
from restore_rwkv.io.child import Child

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

_DECODE = "restore_rwkv.io.dicom.decoders:decode"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _BIG_ENDIAN, _DEFLATED)

StoredPixels = npt.NDArray[np.integer]


class PixelReader:
    """Reads the pixels of the files of a series; compressed ones are decoded in a child process."""

    def __init__(self) -> None:
        self._child = Child(_DECODE)

    def __enter__(self) -> PixelReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.__exit__()

    def stored(self, dataset: FileDataset, name: str) -> StoredPixels:
        """Return the stored values: (rows, columns), or (frames, rows, columns).

        Args:
            dataset: A file with its pixel data.
            name: Of the file, for messages.

        Raises:
            InputError: The pixel data does not fit the header, is damaged, or is compressed in a
                way that is not decoded.
        """
        rows, columns, frames = (
            int(dataset.get(key) or least)
            for key, least in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1))
        )
        bits = int(dataset.get("BitsAllocated") or 0)
        if bits not in (8, 16, 32) or not rows * columns or frames < 1:
            raise InputError(
                f"{name}: {frames} frame(s) of {rows} x {columns} pixels of {bits} bits; not an "
                "image that is read, export it with 8, 16 or 32 bits"
            )
        if not dataset.get("PixelData"):
            raise InputError(f"{name}: has no pixel data; export it again")
        syntax = str(dataset.file_meta.get("TransferSyntaxUID") or _NATIVE[0])
        shape = (frames, rows, columns)
        if syntax in _NATIVE:
            values = _native(
                dataset.PixelData,
                shape,
                f"{'>' if syntax == _BIG_ENDIAN else '<'}u{bits // 8}",
                name,
            )
        else:
            values = self._decoded(dataset.PixelData, shape, syntax, bits, name)
        values = stored_bits(values, dataset, name)
        return values if "NumberOfFrames" in dataset else values[0]

    def _decoded(
        self, data: bytes, shape: tuple[int, int, int], syntax: str, bits: int, name: str
    ) -> StoredPixels:
        from pydicom.encaps import generate_frames

        from restore_rwkv.io.dicom.decoders import DECODERS
        from restore_rwkv.io.dicom.files import refusing

        if syntax not in DECODERS:
            raise InputError(
                f"{name}: is compressed as {_named(syntax)}, which is not decoded; convert it to "
                "an uncompressed or JPEG 2000 transfer syntax"
            )
        count, rows, columns = shape
        with refusing(name, "the compressed pixel data is damaged"):
            frames = [bytes(frame) for frame in generate_frames(data, number_of_frames=count)]
        if len(frames) != count:
            raise InputError(
                f"{name}: has {len(frames)} compressed frame(s), and its header says {count}; copy "
                "it again"
            )
        request = {"syntax": syntax, "rows": rows, "columns": columns, "bits": bits}
        size = rows * columns * bits // 8
        return np.stack([self._child.decode(request, frame, name, size) for frame in frames])


def stored_bits(values: StoredPixels, dataset: Dataset, name: str) -> StoredPixels:
    """Return values cut to BitsStored, with their sign.

    Args:
        values: As a decoder gave them, any integers, (frames, rows, columns).
        dataset: Header of the file.
        name: Of the file, for messages.

    Raises:
        InputError: BitsStored or HighBit is impossible.
    """
    allocated = int(dataset.BitsAllocated)
    stored = int(dataset.get("BitsStored", allocated))
    high = int(dataset.get("HighBit", stored - 1))
    if not 0 < stored <= high + 1 <= allocated:
        raise InputError(
            f"{name}: BitsStored {stored}, HighBit {high} and BitsAllocated {allocated} do not "
            "fit; correct the header"
        )
    signed = bool(dataset.get("PixelRepresentation"))
    kind = np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")
    if stored == allocated and values.dtype.itemsize == kind.itemsize:
        return values.astype(values.dtype.newbyteorder("="), copy=False).view(kind)
    result = np.empty(values.shape, kind)
    sign = 1 << (stored - 1) if signed else 0
    for frame, part in zip(result, values, strict=True):  # no wide copy of all frames
        wide = (part.astype(np.int64) >> (high + 1 - stored)) & ((1 << stored) - 1)
        frame[...] = (wide ^ sign) - sign
    return result


def _native(data: bytes, shape: tuple[int, int, int], kind: str, name: str) -> StoredPixels:
    count = int(np.prod(shape))
    need = count * np.dtype(kind).itemsize
    if len(data) < need:
        raise InputError(
            f"{name}: holds {len(data)} bytes of pixel data, and by its Rows and Columns it has "
            f"{need}; the file is truncated, copy it again"
        )
    return np.frombuffer(data, kind, count).reshape(shape)


def _named(syntax: str) -> str:
    from pydicom.uid import UID

    return str(UID(syntax).name)
