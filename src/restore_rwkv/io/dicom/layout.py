"""How a DICOM header says that pixels are stored, and stored values from decoded numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError
from restore_rwkv.io.decoding import DECODING_ERRORS
from restore_rwkv.io.volume import one_line

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MOST_PIXELS = 1 << 26  # of one frame; mammograms have up to 1 << 25


@dataclass(frozen=True)
class Layout:
    """Number, size and format of the pixels, as the header states them.

    Attributes:
        rows, columns, frames: size of the image.
        allocated, stored: bits of each value in the file, and those of them that count.
        high: place of the highest bit that counts.
        signed: whether the values are in two's complement.
    """

    rows: int
    columns: int
    frames: int
    allocated: int
    stored: int
    high: int
    signed: bool

    @property
    def length(self) -> int:
        """Bytes of all uncompressed pixels."""
        return self.rows * self.columns * self.frames * self.allocated // 8

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")


@dataclass(frozen=True)
class Numbers:
    """Decoded numbers, before bits that do not count are removed.

    Attributes:
        values: integers of any shape.
        precision: bits of each as the stream states them.
        signed: whether the stream states that they are signed.
        exact: whether they are those that were encoded.
    """

    values: npt.NDArray[np.integer]
    precision: int
    signed: bool = False
    exact: bool = True


def layout_of(header: Dataset, name: str) -> Layout:
    """Read and check how a file says that its pixels are stored.

    Raises:
        InputError: They have colours, are of no supported type, or the header contradicts itself.
    """
    try:
        layout = _stated(header)
        samples = int(header.get("SamplesPerPixel") or 1)
    except DECODING_ERRORS as error:
        raise InputError(
            f"{name}: the header of its pixels is damaged ({one_line(error)}); copy the file again"
        ) from error
    rows, columns, allocated = layout.rows, layout.columns, layout.allocated
    if samples != 1:
        raise InputError(f"{name}: a colour image; give a series of grey images")
    if min(rows, columns, layout.frames) < 1 or rows * columns > _MOST_PIXELS:
        raise InputError(
            f"{name}: its header states {layout.frames} frame(s) of {rows} x {columns} pixels, "
            "which is not an image that can be read; copy the file again"
        )
    if allocated not in (8, 16, 32):
        raise InputError(
            f"{name}: BitsAllocated is {allocated}; convert the image to 8, 16 or 32 bits"
        )
    if layout.stored < 1 or not layout.stored - 1 <= layout.high < allocated:
        raise InputError(
            f"{name}: BitsStored {layout.stored}, HighBit {layout.high} and BitsAllocated "
            f"{allocated} do not fit; correct the header"
        )
    return layout


def _stated(header: Dataset) -> Layout:
    allocated = int(header.get("BitsAllocated") or 0)
    bits, high = header.get("BitsStored"), header.get("HighBit")
    stored = allocated if bits is None else int(bits)
    return Layout(
        rows=int(header.get("Rows") or 0),
        columns=int(header.get("Columns") or 0),
        frames=int(header.get("NumberOfFrames") or 1),
        allocated=allocated,
        stored=stored,
        high=stored - 1 if high is None else int(high),
        signed=bool(int(header.get("PixelRepresentation") or 0)),
    )


def stored_values(numbers: Numbers, layout: Layout) -> npt.NDArray[np.integer]:
    """Return the values that the bits which count stand for, with their sign.

    Streams may hold other bits above them, such as overlays, or no copies of the sign. What a lossy
    stream holds beyond the range of the stored bits is an error of its compression and is clipped.

    Args:
        numbers: decoded numbers.
        layout: which bits count.

    Returns:
        Values of type ``layout.dtype``, in the shape of the numbers.

    Raises:
        ValueError: Precision or sign of the stream and the header leave the values open.
    """
    values = numbers.values.astype(np.int64)
    unused = layout.high + 1 - layout.stored  # bits below those that count
    if unused and numbers.precision > layout.high:
        values >>= unused
    elif unused and numbers.precision != layout.stored:
        raise ValueError(_open_bits(numbers, layout))
    low = -(1 << (layout.stored - 1)) if layout.signed else 0
    size = 1 << layout.stored
    if numbers.precision < layout.stored:
        _check_narrow(values, numbers, layout)
    elif not numbers.exact and numbers.signed == layout.signed:
        values = values.clip(low, low + size - 1)
    else:
        values = ((values - low) & (size - 1)) + low
    result: npt.NDArray[np.integer] = values.astype(layout.dtype)
    return result


def _check_narrow(values: npt.NDArray[np.int64], numbers: Numbers, layout: Layout) -> None:
    """Check that numbers of fewer bits than are stored mean the same with and without a sign."""
    reduced = not numbers.exact and numbers.precision <= 8  # scaled to a picture, perhaps
    negative = numbers.signed and not layout.signed and values.min() < 0
    half = 1 << (numbers.precision - 1)
    without_sign = layout.signed and not numbers.signed and values.max() >= half
    if reduced or negative or without_sign:
        raise ValueError(_open_bits(numbers, layout))


def _open_bits(numbers: Numbers, layout: Layout) -> str:
    kind = "signed" if numbers.signed else "unsigned"
    stored = "signed" if layout.signed else "unsigned"
    return (
        f"it has {kind} values of {numbers.precision} bits, and the header {stored} ones of "
        f"{layout.stored} bits up to bit {layout.high}"
    )
