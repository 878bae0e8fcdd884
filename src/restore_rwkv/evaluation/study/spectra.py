"""Noise power spectra of what images differ by from the truth, averaged over scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_rwkv.evaluation.study.results import Spectrum

_SLICES = 32  # of a scan, evenly spaced: more change little, and take memory
_RINGS = 64
_LEAST_SIDE = 8  # pixels

_Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(eq=False)
class _Curves:
    """Spectra of the scans of one task and method, as (frequency, power), and slices of each."""

    per_pixel: list[_Curve] = field(default_factory=list)
    per_mm: list[_Curve] = field(default_factory=list)
    slices: list[int] = field(default_factory=list)


class SpectrumMeans:
    """Means of the spectra of several scans, each weighted by its number of slices.

    Scans may have other sizes and pixels: spectra are interpolated at common frequencies, up to the
    lowest of their highest ones. They are in 1/mm where all scans of a task have known pixels.
    """

    def __init__(self) -> None:
        self._curves: dict[tuple[str, str], _Curves] = {}

    def add(
        self,
        task: str,
        truth: NDArray[Any],
        images: Mapping[str, NDArray[Any]],
        pixel_mm: tuple[float, float] | None,
    ) -> None:
        """Add a scan.

        Args:
            task: name of its task.
            truth: (N, H, W); scans of less than 8 x 8 pixels are left out.
            images: images by method, of the same shape.
            pixel_mm: distance of pixels along rows and columns; None if unknown.
        """
        from restore_rwkv.evaluation.physical import noise_power_spectrum

        count = len(truth)
        if min(truth.shape[1:]) < _LEAST_SIDE:
            return
        chosen = np.unique(np.linspace(0, count - 1, min(count, _SLICES)).round().astype(int))
        for method, image in images.items():
            difference = image[chosen].astype(np.float64) - truth[chosen]
            found = self._curves.setdefault((task, method), _Curves())
            found.slices.append(count)
            for curves, pixel in ((found.per_pixel, (1.0, 1.0)), (found.per_mm, pixel_mm)):
                if pixel is not None:
                    spectrum = noise_power_spectrum(difference, pixel, detrend="mean")
                    curves.append((spectrum.frequency, spectrum.radial))

    def spectra(self) -> tuple[Spectrum, ...]:
        """Return the mean spectrum of each task and method, in the order in which they came."""
        unknown = {task for (task, _), x in self._curves.items() if len(x.per_mm) < len(x.slices)}
        return tuple(
            _mean(task, method, curves, per_mm=task not in unknown)
            for (task, method), curves in self._curves.items()
        )


def _mean(task: str, method: str, curves: _Curves, *, per_mm: bool) -> Spectrum:
    found = curves.per_mm if per_mm else curves.per_pixel
    first = max(frequency[0] for frequency, _ in found)
    last = min(frequency[-1] for frequency, _ in found)
    common = found[0][0] if len(found) == 1 else np.linspace(first, last, _RINGS)
    power = np.average(
        [np.interp(common, frequency, radial) for frequency, radial in found],
        axis=0,
        weights=curves.slices,
    )
    return Spectrum(task=task, method=method, frequency=common, power=power, per_mm=per_mm)
