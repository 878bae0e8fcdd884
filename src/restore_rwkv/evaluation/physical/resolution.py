"""Sharpness at the edge of a circular insert: the task transfer function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal.windows import tukey

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.measures.measure import NoScoreError, Values
from restore_rwkv.evaluation.physical.noise import check_pixel

_BINS_PER_PIXEL = 4
_PADDED = 16  # times; frequencies are interpolated between those of the profile
_NO_CONTRAST = 1e-9  # of the largest value


@dataclass(frozen=True, kw_only=True, eq=False)
class TransferFunction:
    """Task transfer function (TTF) of an insert.

    Attributes:
        frequency: in 1/mm, from 0 to the Nyquist frequency of the pixels.
        value: TTF at each frequency; 1 at frequency 0.
        distance: from the centre of the insert, in mm, at equal steps across its edge.
        edge: edge spread function there: the mean of the image at that distance.
        contrast: image inside less outside of the edge, in the unit of the image.
    """

    frequency: Values
    value: Values
    distance: Values
    edge: Values
    contrast: float

    @property
    def f50(self) -> float:
        """Lowest frequency in 1/mm at which the TTF is 0.5; see `falls_to`."""
        return self.falls_to(0.5)

    @property
    def f10(self) -> float:
        """Lowest frequency in 1/mm at which the TTF is 0.1; see `falls_to`."""
        return self.falls_to(0.1)

    def falls_to(self, value: float) -> float:
        """Return the lowest frequency in 1/mm at which the TTF falls to a value.

        Raises:
            NoScoreError: it stays above it up to the Nyquist frequency.
        """
        below = np.flatnonzero(self.value < value)
        if len(below) == 0 or below[0] == 0:
            raise NoScoreError(f"the transfer function stays above {value:g}")
        last = below[0]
        (f0, f1), (v0, v1) = self.frequency[last - 1 : last + 1], self.value[last - 1 : last + 1]
        return float(f0 + (v0 - value) / (v0 - v1) * (f1 - f0))


def task_transfer_function(
    images: ArrayLike,
    centre: tuple[float, float],
    radius_mm: float,
    pixel_mm: tuple[float, float],
    *,
    margin_mm: float | None = None,
) -> TransferFunction:
    """Measure the transfer function of the edge of a disc: sharpness at its contrast and noise.

        TTF(f) = abs(DFT(d ESF / dr)) / its value at 0

    with the edge spread function ESF(r), the mean of the image at a distance r from the centre, in
    steps of a quarter of a pixel (Richard et al., Med Phys 39:4115, 2012; Verdun et al., Phys Med
    31:823, 2015). The effect of the steps, sinc(f step)^2, is divided out. A network or an
    iterative reconstruction is not linear, so that the result is that of this contrast in this
    noise, and of no other. Average as many images as there are: noise raises the TTF where it is
    low. The profile ends smoothly at the margin, which hides wide tails: the f50 of a Gaussian is
    within 1 % where its sd is at most a fifth of the margin, and 3 % too high at 0.3 of it. It is
    blind to blur that depends on the direction, and to everything but the edge.

    Args:
        images: (H, W), or (N, H, W), of which the mean is taken: slices, or realisations.
        centre: row and column of the centre, in pixels, from 0 at the centre of the first one.
        radius_mm: radius of the disc in mm.
        pixel_mm: distance of rows and of columns in mm.
        margin_mm: how far the profile reaches into the disc and out of it; 0.8 of the radius if not
            given. Nothing else may lie there.

    Raises:
        InputError: a shape, a value or a distance is invalid, or the profile leaves the image.
        NoScoreError: there is no edge.
    """
    values = np.asarray(images, dtype=np.float64)
    values = values.mean(axis=0) if values.ndim == 3 and len(values) else values
    check_pixel(pixel_mm)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InputError(
            f"images have shape {np.shape(images)}; give finite (H, W) or (N, H, W) values"
        )
    margin = 0.8 * radius_mm if margin_mm is None else margin_mm
    step = min(pixel_mm) / _BINS_PER_PIXEL
    if not (0 < margin <= radius_mm < np.inf and margin >= 16 * step):
        raise InputError(
            f"radius_mm is {radius_mm:g} and margin_mm {margin:g}; give a margin of at least 4 "
            "pixels and at most the radius"
        )
    _require_inside(values.shape, centre, radius_mm + margin, pixel_mm)
    distance, edge = _edge(values, centre, (radius_mm - margin, radius_mm + margin), pixel_mm)
    window = tukey(len(edge) - 1, 0.5)
    line = -np.diff(edge) * window
    contrast = float(line.sum())
    if abs(contrast) <= _NO_CONTRAST * float(np.abs(values).max()):
        raise NoScoreError("the insert has no contrast")
    count = _PADDED * len(line)
    frequency = np.asarray(np.fft.rfftfreq(count, step), dtype=np.float64)
    value = np.abs(np.fft.rfft(line, count)) / abs(contrast)
    value = value / np.sinc(frequency * step) ** 2
    used = frequency <= 0.5 / max(pixel_mm)
    return TransferFunction(
        frequency=frequency[used],
        value=value[used],
        distance=distance,
        edge=edge,
        contrast=contrast,
    )


def _edge(
    image: Values,
    centre: tuple[float, float],
    between: tuple[float, float],
    pixel_mm: tuple[float, float],
) -> tuple[Values, Values]:
    """Distances in mm at equal steps, and the mean of the image at each."""
    step = min(pixel_mm) / _BINS_PER_PIXEL
    rows, columns = (
        (np.arange(count) - place) * side
        for count, place, side in zip(image.shape, centre, pixel_mm, strict=True)
    )
    bins = np.floor((np.hypot(rows[:, None], columns) - between[0]) / step).astype(int)
    count = int((between[1] - between[0]) / step)
    used = (bins >= 0) & (bins < count)
    sums = np.bincount(bins[used], image[used], minlength=count)
    counts = np.bincount(bins[used], minlength=count)
    filled = counts > 0
    distance = np.asarray(between[0] + (np.arange(count) + 0.5) * step, dtype=np.float64)
    return distance, np.interp(distance, distance[filled], sums[filled] / counts[filled])


def _require_inside(
    shape: tuple[int, ...], centre: tuple[float, float], reach: float, pixel_mm: tuple[float, float]
) -> None:
    for count, place, side in zip(shape, centre, pixel_mm, strict=True):
        if not reach / side <= place <= count - 1 - reach / side:
            raise InputError(
                f"the profile reaches {reach:g} mm from {tuple(centre)}, out of the image of "
                f"{shape[0]} x {shape[1]} pixels; give a smaller margin_mm"
            )
