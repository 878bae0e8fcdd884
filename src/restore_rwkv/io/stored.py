"""How a file stores the values of an image, and the way from values to stored numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stored:
    """Number format of a file: ``value = slope * stored + inter``.

    Attributes:
        dtype: NumPy type of the stored numbers, with the file's byte order.
        slope: Factor in physical units per stored step, never 0.
        inter: Value of a stored 0, in physical units.
    """

    dtype: np.dtype[np.generic]
    slope: float = 1.0
    inter: float = 0.0


def scaled(numbers: npt.NDArray[np.generic], stored: Stored) -> npt.NDArray[np.generic]:
    """Apply slope and intercept in float64, slice by slice to save memory.

    Args:
        numbers: As stored, (X, Y, Z).
        stored: Number format of the file.

    Returns:
        float32 values, or the numbers themselves where there is nothing to apply.
    """
    if (stored.slope, stored.inter) == (1.0, 0.0):
        return numbers
    out = np.empty(numbers.shape, np.float32, order="F")
    with np.errstate(over="ignore"):
        for k in range(numbers.shape[-1]):
            out[..., k] = numbers[..., k].astype(np.float64) * stored.slope + stored.inter
    return out


def encode(data: Float32Array, stored: Stored) -> npt.NDArray[np.generic]:
    """Convert values to the stored numbers of a file: rounded and clipped, never wrapped around.

    Args:
        data: Values in physical units, any shape.
        stored: Number format of the file.

    Returns:
        Array of the same shape and of type ``stored.dtype``.
    """
    low, high = _limits(stored.dtype)
    out: npt.NDArray[np.generic] = np.empty(data.shape, dtype=stored.dtype, order="F")
    for k in range(data.shape[-1]):  # slice by slice: float64 copies of a volume are large
        numbers = (data[..., k].astype(np.float64) - stored.inter) / stored.slope
        if stored.dtype.kind in "iu":
            numbers = np.rint(numbers)
        out[..., k] = np.clip(numbers, low, high).astype(stored.dtype)
    return out


def count_clipped(data: Float32Array, stored: Stored) -> int:
    """Return how many values `encode` would clip by more than half a stored step."""
    low, high = _limits(stored.dtype)
    count = 0
    for k in range(data.shape[-1]):
        numbers = (data[..., k].astype(np.float64) - stored.inter) / stored.slope
        count += int(np.count_nonzero((numbers < low - 0.5) | (numbers > high + 0.5)))
    return count


def _limits(dtype: np.dtype[np.generic]) -> tuple[float, float]:
    if dtype.kind == "f":
        limits = np.finfo(dtype.name)
        return float(limits.min), float(limits.max)
    info = np.iinfo(dtype.name)
    high = float(info.max)
    if int(high) > info.max:  # 2**63 - 1 rounds up in float64, and would wrap
        high = float(np.nextafter(high, 0.0))
    return float(info.min), high


def written_type(source: Stored | None, dtype: str, order: str) -> Stored:
    """Return the number format of an output that keeps no slope.

    Args:
        source: that of the source; None where it has none.
        dtype: "source" for the type of the source, else float32.
        order: byte order, "<" or ">".
    """
    kind = source.dtype if dtype == "source" and source is not None else np.dtype(np.float32)
    return Stored(kind.newbyteorder(order))  # type: ignore[arg-type]
