"""Stored pixels of a derived image: rounded, clipped and counted, padding kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from restore_rwkv.errors import InputError
from restore_rwkv.io.dicom.files import read_up_to_pixels
from restore_rwkv.io.dicom.pixels import PixelReader
from restore_rwkv.io.stored import Float32Array

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

StoredArray = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]

_PET_LARGEST = 32767
_ALWAYS_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_LOSSY_METHODS = {  # by transfer syntax
    **dict.fromkeys(_ALWAYS_LOSSY, "ISO_10918_1"),
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.93": "ISO_15444_2",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}


@dataclass(frozen=True)
class PixelFormat:
    """How an image stores its pixels.

    Attributes:
        dtype: Type of a pixel cell, little endian.
        low: Smallest number that BitsStored holds.
        high: Largest.
        padding: Smallest and largest number that mean "outside the image"; None without.
    """

    dtype: np.dtype[np.generic]
    low: int
    high: int
    padding: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class Padding:
    """Pixels of a file that mean "outside the image".

    Attributes:
        mask: Which they are, ((frames,) rows, columns).
        stored: Stored numbers of the source, of the same shape.
    """

    mask: BoolArray
    stored: StoredArray

    def frame(self, index: int) -> Padding:
        """Padding of one frame."""
        return Padding(self.mask[index], self.stored[index])


def pixel_format(header: Dataset, name: str) -> PixelFormat:
    """Return how the pixels of an image are stored.

    Args:
        header: Header of the image.
        name: Its file name, for messages.

    Raises:
        InputError: The pixels are not grey integers in cells of 8, 16 or 32 bits.
    """
    bits = int(header.get("BitsAllocated") or 0)
    stored, signed = int(header.get("BitsStored") or bits), header.get("PixelRepresentation") == 1
    grey = str(header.get("PhotometricInterpretation")).startswith("MONOCHROME")
    if not grey or header.get("SamplesPerPixel", 1) != 1:
        raise InputError(f"{name}: a colour image; give a series of grey images")
    if bits not in (8, 16, 32) or not 1 < stored <= bits:
        raise InputError(
            f"{name}: pixels of {stored} bits in cells of {bits} cannot be written as DICOM; "
            "write .nii.gz"
        )
    low = -(1 << (stored - 1)) if signed else 0
    high = low + (1 << stored) - 1
    padding = _padding(header, bits, signed=signed)
    if str(header.get("Modality")) == "MR":  # whose padding is often 0, the value of its background
        padding = None
    return PixelFormat(np.dtype(f"<{'i' if signed else 'u'}{bits // 8}"), low, high, padding)


def _padding(header: Dataset, bits: int, *, signed: bool) -> tuple[int, int] | None:
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = header.get(keyword)
        if isinstance(value, int):
            # Its representation is often wrong: 63536 stands for -2000 in signed pixels.
            value &= (1 << bits) - 1
            ends.append(value - (1 << bits) if signed and value >> (bits - 1) else value)
    if "PixelPaddingValue" not in header or not ends:
        return None
    return min(ends), max(ends)


def read_padding(
    path: Path, kind: PixelFormat, shape: tuple[int, ...], pixels: PixelReader
) -> Padding | None:
    """Find the padding of a file, on the grid of the derived image.

    Args:
        path: File of the source.
        kind: How its pixels are stored.
        shape: Of the derived pixels, ((frames,) rows, columns); each takes the nearest of the file.
        pixels: Reads them.

    Returns:
        None if the file has no padding.

    Raises:
        InputError: Its pixels cannot be decoded.
    """
    if kind.padding is None:
        return None
    stored = _stored_pixels(path, pixels)
    rows, columns = stored.shape[-2:]
    stored = stored.reshape(*shape[:-2], rows, columns)
    down = (2 * np.arange(shape[-2]) + 1) * rows // (2 * shape[-2])
    right = (2 * np.arange(shape[-1]) + 1) * columns // (2 * shape[-1])
    stored = stored[..., down[:, None], right]
    first, last = kind.padding
    mask = (stored >= first) & (stored <= last)
    return Padding(mask, stored) if mask.any() else None


def _stored_pixels(path: Path, pixels: PixelReader) -> StoredArray:
    """Return the stored pixels of a file, ((frames,) rows, columns)."""
    return pixels.stored(read_up_to_pixels(path), path.name)


def largest_value(values: Float32Array, padding: Padding | None) -> float:
    """Largest absolute value of those pixels that are not padding; 0 if all are."""
    magnitudes = np.abs(values)
    if padding is not None:
        magnitudes = magnitudes[~padding.mask]
    return float(magnitudes.max(initial=0))


def to_stored(
    values: Float32Array,
    rescale: tuple[float, float],
    kind: PixelFormat,
    padding: Padding | None,
) -> tuple[StoredArray, int]:
    """Convert the values of a slice to stored pixels.

    Padding keeps the stored number of the source. Other pixels that would get a number of the
    padding move to the nearest one outside of it.

    Args:
        values: Values in physical units, (rows, columns).
        rescale: Slope and intercept: ``value = slope * stored + intercept``.
        kind: Number format.
        padding: Which pixels are padding; None for none.

    Returns:
        The stored pixels, and how many of them were clipped.
    """
    slope, intercept = rescale
    exact = (values.astype(np.float64) - intercept) / slope
    numbers = np.rint(exact)
    outside = (numbers < kind.low) | (numbers > kind.high)
    numbers = np.clip(numbers, kind.low, kind.high)
    if kind.padding is not None:
        first, last = kind.padding
        collides = (numbers >= first) & (numbers <= last)
        up = exact >= (first + last) / 2  # the value is nearer to the numbers above the padding
        up = (up & (last < kind.high)) | (first <= kind.low)
        numbers[collides] = np.where(up, last + 1, first - 1)[collides]
    if padding is not None:
        numbers[padding.mask] = padding.stored[padding.mask]
        outside &= ~padding.mask
    return numbers.astype(kind.dtype), int(outside.sum())


def pet_slope(largest: float, kind: PixelFormat) -> str:
    """Return the RescaleSlope of PET pixels with intercept 0, as text of at most 16 characters.

    It is the largest value over 32767 (or the largest number that is stored, if smaller), rounded
    up so that no pixel is clipped; 1 if all values are 0.

    Args:
        largest: Largest absolute value of the pixels, in physical units.
        kind: Number format.
    """
    from pydicom.valuerep import format_number_as_ds

    steps = min(_PET_LARGEST, kind.high)
    if largest == 0:
        return "1"
    slope = largest / steps
    text: str = format_number_as_ds(slope)
    while float(text) * steps < largest:
        slope = math.nextafter(slope * (1 + 1e-10), math.inf)
        text = format_number_as_ds(slope)
    return text


def set_pixels(header: Dataset, pixels: StoredArray) -> None:
    """Put stored pixels, (..., rows, columns), into a header, with what depends on them."""
    signed = header.get("PixelRepresentation") == 1
    for keyword, number in (
        ("SmallestImagePixelValue", int(pixels.min())),
        ("LargestImagePixelValue", int(pixels.max())),
    ):
        if keyword in header:
            delattr(header, keyword)
            if pixels.dtype.itemsize <= 2:  # the elements hold 16 bits
                header.add_new(keyword, "SS" if signed else "US", number)
    header.Rows, header.Columns = pixels.shape[-2:]
    header.HighBit = int(header.get("BitsStored") or header.BitsAllocated) - 1
    data = pixels.tobytes()
    header.PixelData = data + bytes(len(data) % 2)
    header["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"


def mark_lossy(header: Dataset, syntax: str, path: Path) -> None:
    """Keep in a header that the pixels were once compressed with loss, though they are no longer.

    JPEG 2000 and JPEG-LS of a syntax that allows loss may be without it, which the header says.

    Args:
        header: Header of the source; changed.
        syntax: UID of its transfer syntax.
        path: Its file.
    """
    method = _LOSSY_METHODS.get(syntax)
    stated = header.get("LossyImageCompression")
    if stated == "01" or method is None or (stated == "00" and syntax not in _ALWAYS_LOSSY):
        return
    header.LossyImageCompression = "01"
    if "LossyImageCompressionMethod" not in header:
        header.LossyImageCompressionMethod = method
    if "LossyImageCompressionRatio" not in header:
        pixels = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
        ratio = pixels * int(header.BitsAllocated) / 8 / path.stat().st_size
        header.LossyImageCompressionRatio = f"{max(1.0, ratio):.2f}"
