"""Fourier ring correlation of two images, and its scan over patches (sFRC)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.measures.measure import Values

_LEAST_SIDE = 8  # pixels
_PART = 512  # patches at once


@dataclass(frozen=True, eq=False)
class ScannedCorrelation:
    """Up to which frequency the patches of an image agree with a reference.

    Attributes:
        agreement: (N,) frequency of each patch, in cycles per mm, at which its correlation falls
            below the limit; the Nyquist frequency where it never does.
        corners: (N, 3) slice, first row and first column of each patch.
        side: of the patches, in pixels.
    """

    agreement: Values
    corners: NDArray[np.intp]
    side: int

    def flagged(self, frequency: float) -> NDArray[np.bool_]:
        """Return which patches agree only below a frequency in cycles per mm, (N,)."""
        return self.agreement < frequency


def fourier_ring_correlation(one: ArrayLike, other: ArrayLike) -> Values:
    """Return the correlation of two images ring by ring in the frequency plane.

        FRC(r) = Re sum F1 conj(F2) / sqrt(sum abs(F1)^2 sum abs(F2)^2)

    with sums over the frequencies whose distance from 0, in steps of 1 / (side * pixel), rounds to
    r (Saxton & Baumeister, J Microsc 127:127, 1982; van Heel, Ultramicroscopy 21:95, 1987). It is
    1 for equal images, also where one is the other times a positive number, and about 0 for
    independent noise. It is blind to such factors: a filter that weakens all frequencies of a ring
    alike, as a blur does, leaves it as it is.

    Args:
        one: (..., side, side).
        other: of the same shape.

    Returns:
        (..., side // 2 + 1), from frequency 0 to the Nyquist frequency, -1 to 1; 0 where one of the
        images has nothing in a ring.

    Raises:
        InputError: shapes differ, or the images are not square.
    """
    first, second = (np.asarray(image, dtype=np.float64) for image in (one, other))
    if first.shape != second.shape or first.ndim < 2 or first.shape[-1] != first.shape[-2]:
        raise InputError(
            f"images have shapes {first.shape} and {second.shape}; give two equal (..., n, n)"
        )
    side = first.shape[-1]
    steps = np.fft.fftfreq(side, 1 / side)
    ring = np.rint(np.hypot(steps[:, None], steps)).astype(int).ravel()
    rings = side // 2 + 1
    belongs = (ring == np.arange(rings)[:, None]).astype(np.float64).T
    f1, f2 = (
        np.fft.fft2(image).reshape(*image.shape[:-2], side * side) for image in (first, second)
    )
    both = (f1 * f2.conj()).real @ belongs
    power = ((np.abs(f1) ** 2) @ belongs) * ((np.abs(f2) ** 2) @ belongs)
    found: Values = np.divide(both, np.sqrt(power), out=np.zeros_like(both), where=power > 0)
    return found


def scan_ring_correlation(
    image: ArrayLike,
    reference: ArrayLike,
    pixel_mm: float,
    *,
    side: int = 64,
    limit: float = 0.5,
    within: NDArray[np.bool_] | None = None,
) -> ScannedCorrelation:
    """Scan two stacks of slices patch by patch with the Fourier ring correlation (sFRC).

    Kc, Zeng, Soni & Badano, "sFRC for assessing hallucinations in medical image restoration",
    arXiv 2603.04673: a patch whose correlation with the reference falls below a constant limit at
    a lower frequency than a threshold is flagged as holding what the reference does not support.
    As in the code of its authors, patches have 64 pixels a side and lie beside each other, are
    multiplied by a Hann window, rings reach to the Nyquist frequency, and the limit is 0.5. Unlike
    there, the mean of a patch is taken away first, so that it does not fill the first rings, the
    real part of the correlation counts and not its absolute value, rings are rounded, and the
    crossing is interpolated. The threshold of frequency is the caller's: the authors chose theirs
    on patches that experts had annotated.

    Noise in the reference, and noise that is still in the image, flag patches as well: compare
    with the share in the input.

    Args:
        image: (N, H, W) slices.
        reference: of the same shape.
        pixel_mm: side of a pixel.
        side: of patches in pixels.
        limit: below which two patches count as different, 0 to 1.
        within: (N, H, W) where there is something to compare; patches with less than half of it
            are left out. None for all.

    Raises:
        InputError: shapes differ, slices are smaller than a patch, or a number is out of range.
    """
    first, second = (np.asarray(stack, dtype=np.float64) for stack in (image, reference))
    if first.ndim != 3 or first.shape != second.shape:
        raise InputError(
            f"stacks have shapes {first.shape} and {second.shape}; give two equal (N, H, W)"
        )
    if side < _LEAST_SIDE or min(first.shape[1:]) < side or not (pixel_mm > 0 and 0 < limit < 1):
        raise InputError(
            f"patches of {side} pixels, a limit of {limit:g} and pixels of {pixel_mm:g} mm do not "
            f"suit slices of {first.shape[1:]}; give at least {_LEAST_SIDE} pixels and at most "
            "the slice, a limit between 0 and 1 and a pixel above 0"
        )
    corners = _corners(first.shape, side, within)
    window = np.hanning(side + 2)[1:-1]
    window = window[:, None] * window
    agreement = [np.zeros(0)]
    for start in range(0, len(corners), _PART):
        part = corners[start : start + _PART]
        patches = [_patches(stack, part, side) * window for stack in (first, second)]
        agreement.append(_crossing(fourier_ring_correlation(*patches), limit) / (side * pixel_mm))
    return ScannedCorrelation(np.concatenate(agreement), corners, side)


def _corners(
    shape: tuple[int, ...], side: int, within: NDArray[np.bool_] | None
) -> NDArray[np.intp]:
    """Corners (N, 3) of the patches beside each other around the middle of the slices."""
    starts = [range((n % side) // 2, n - side + 1, side) for n in shape[1:]]
    found = []
    for index in range(shape[0]):
        for row in starts[0]:
            for column in starts[1]:
                part = (index, slice(row, row + side), slice(column, column + side))
                if within is None or within[part].mean() >= 0.5:
                    found.append((index, row, column))
    return np.asarray(found, dtype=np.intp).reshape(-1, 3)


def _patches(stack: Values, corners: NDArray[np.intp], side: int) -> Values:
    """Patches (N, side, side), each without its mean."""
    patches = np.stack([stack[i, r : r + side, c : c + side] for i, r, c in corners])
    without: Values = patches - patches.mean(axis=(1, 2), keepdims=True)
    return without


def _crossing(curves: Values, limit: float) -> Values:
    """Ring (N,), between rings, at which curves (N, rings) first fall below a limit."""
    curves = np.concatenate([np.ones((len(curves), 1)), curves[:, 1:]], axis=1)
    below = curves < limit
    after = np.where(below.any(axis=1), below.argmax(axis=1), curves.shape[1] - 1)
    rows = np.arange(len(curves))
    high, low = curves[rows, np.maximum(after - 1, 0)], curves[rows, after]
    step = np.divide(high - limit, high - low, out=np.ones_like(high), where=high > low)
    ring: Values = np.where(below.any(axis=1), after - 1 + step, after.astype(np.float64))
    return ring
