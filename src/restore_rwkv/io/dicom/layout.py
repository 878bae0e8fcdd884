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

_FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
_MOST_PIXELS = 1 << 26  # of one frame; mammograms have up to 1 << 25


@dataclass(frozen=True)
class Layout:
    """Number, size and format of the pixels, as the header states them.

    Attributes:
        keyword: element that holds them: PixelData, FloatPixelData or DoubleFloatPixelData.
        allocated, stored: bits of each value in the file, and those of them that count.
        high: place of the highest bit that counts.
        signed: whether the values are in two's complement.
    """

    keyword: str
    rows: int
    columns: int
    frames: int
    allocated: int
    stored: int
    high: int
    signed: bool

    @property
    def is_float(self) -> bool:
        """Whether the values are floating-point numbers."""
        return self.keyword in _FLOATS

    @property
    def length(self) -> int:
        """Bytes of all uncompressed pixels."""
        return self.rows * self.columns * self.frames * self.allocated // 8

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the native pixels, little endian."""
        kind = "f" if self.is_float else "i" if self.signed else "u"
        return np.dtype(f"<{kind}{self.allocated // 8}")


@dataclass(frozen=True)
class Numbers:
    """Decoded numbers of one frame, before bits that do not count are removed.

    Attributes:
        values: integers, rows by columns.
        precision: bits of each as the stream states them.
        signed: whether the stream states that they are signed.
        exact: whether they are those that were encoded.
    """

    values: npt.NDArray[np.integer]
    precision: int
    signed: bool
    exact: bool


def layout_of(dataset: Dataset, name: str) -> Layout:
    """Read and check how a data set says that its pixels are stored.

    Raises:
        InputError: There are no pixels, they have colours, or the header contradicts itself.
    """
    keyword = next((key for key in ("PixelData", *_FLOATS) if key in dataset), None)
    if keyword is None:
        raise InputError(f"{name}: has no pixel data; give the image itself, or copy it again")
    try:
        layout = _stated(dataset, keyword)
        samples = int(dataset.get("SamplesPerPixel") or 1)
    except DECODING_ERRORS as error:
        raise InputError(
            f"{name}: the header of its pixels is damaged ({one_line(error)}); copy the file again"
        ) from error
    if samples != 1:
        raise InputError(f"{name}: a colour image; give a series of grey images")
    if min(layout.rows, layout.columns, layout.frames) < 1:
        raise InputError(
            f"{name}: states {layout.rows} x {layout.columns} pixels and {layout.frames} frames; "
            "copy the file again"
        )
    if layout.rows * layout.columns > _MOST_PIXELS:
        raise InputError(
            f"{name}: states {layout.rows} x {layout.columns} pixels, more than are supported; "
            "give images of the usual sizes"
        )
    if not layout.is_float:
        _check_bits(layout, name)
    return layout


def _stated(dataset: Dataset, keyword: str) -> Layout:
    bits = _FLOATS.get(keyword)
    allocated = bits or int(dataset.get("BitsAllocated") or 0)
    stored = bits or int(dataset.get("BitsStored") or allocated)
    high = dataset.get("HighBit")
    return Layout(
        keyword=keyword,
        rows=int(dataset.get("Rows") or 0),
        columns=int(dataset.get("Columns") or 0),
        frames=int(dataset.get("NumberOfFrames") or 1),
        allocated=allocated,
        stored=stored,
        high=stored - 1 if high is None or bits else int(high),
        signed=bool(int(dataset.get("PixelRepresentation") or 0)) and not bits,
    )


def _check_bits(layout: Layout, name: str) -> None:
    if layout.allocated not in (8, 16, 32):
        raise InputError(
            f"{name}: BitsAllocated is {layout.allocated}, and 8, 16 and 32 are supported; "
            "give an image with one of them"
        )
    if not layout.stored - 1 <= layout.high < layout.allocated:
        raise InputError(
            f"{name}: BitsStored {layout.stored} and HighBit {layout.high} do not fit "
            f"BitsAllocated {layout.allocated}; correct its header"
        )


def stored_values(numbers: Numbers, layout: Layout) -> npt.NDArray[Any]:
    """Return the values that the bits which count stand for, with their sign.

    Streams may hold other bits above them, such as overlays, or no copies of the sign. What a lossy
    stream holds beyond the range of the stored bits is an error of its compression and is clipped.

    Args:
        numbers: decoded numbers.
        layout: which bits count.

    Returns:
        Values of type ``layout.dtype``, rows by columns.

    Raises:
        ValueError: Precision or sign of the stream and the header leave the values open.
    """
    values = numbers.values.astype(np.int64)
    unused = layout.high + 1 - layout.stored  # below those that count
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
    return values.astype(layout.dtype)


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
