"""What is challenged: restorers by weights, the input as it is, a plain blur, or any function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq

from restore_rwkv.errors import ConfigError
from restore_rwkv.evaluation.challenge.lesions import Index, pixel_of, spacing_of
from restore_rwkv.evaluation.scores import options_told
from restore_rwkv.evaluation.study.naming import unique_names
from restore_rwkv.io import Progress, Volume
from restore_rwkv.model import find_weights
from restore_rwkv.restoration import RestoreOptions, Restorer
from restore_rwkv.tasks import Task, slice_axis

INPUT = "input"
BLUR = "blur"

_WIDEST = 8.0  # pixels: sd of the blur


class Method(Protocol):
    """Anything that restores a scan on its grid and in its unit."""

    def __call__(self, low: Volume, /) -> Volume:
        """Return the restored form of a low-quality scan."""
        ...


@dataclass(eq=False)
class ByWeights:
    """Restores with weights, told the factor of the degradation.

    Attributes:
        restorer: of these weights.
        task: task of the scans.
        factor: of the degradation.
        options: of the restoration.
        progress: called with (slices done, all) of each scan.
    """

    restorer: Restorer
    task: Task
    factor: float
    options: RestoreOptions = field(default_factory=RestoreOptions)
    progress: Progress | None = None

    def __call__(self, low: Volume, /) -> Volume:
        """Return the restored form of a low-quality scan."""
        told = options_told(self.options, self.restorer, self.task, self.factor)
        return self.restorer.run(low, told, self.progress).volume


@dataclass(frozen=True)
class Blur:
    """A Gaussian in the slices.

    Attributes:
        task: task of the scans.
        sd: in mm.
    """

    task: Task
    sd: float

    def __call__(self, low: Volume, /) -> Volume:
        """Return the blurred scan."""
        across = slice_axis(low, self.task)
        sides = enumerate(spacing_of(low))
        sd = [0.0 if axis == across else self.sd / side for axis, side in sides]
        return low.with_data(gaussian_filter(low.data, sd))


def unchanged(low: Volume, /) -> Volume:
    """Return the scan as it is: the method "input"."""
    return low


def methods_of(
    weights: Sequence[str | Path], task: Task, factor: float, device: str = "auto"
) -> dict[str, ByWeights]:
    """Return a method for each weights, by the name of the file; the task's own without any.

    Raises:
        WeightsError: weights are missing, damaged, or for another task.
        ConfigError: two have the same name, or the name of the input or the blur.
    """
    paths = [find_weights(given) for given in dict.fromkeys(weights or (task.weights,))]
    names = unique_names([path.with_suffix("") for path in paths])
    for name in names:
        if name in (INPUT, BLUR) or names.count(name) > 1:
            raise ConfigError(f"weights: {name!r} cannot name a method; rename the file")
    return {
        name: ByWeights(Restorer(task.name, path, device), task, factor)
        for name, path in zip(names, paths, strict=True)
    }


def equal_blur(
    low: Volume,
    restored: Volume,
    task: Task,
    sites: Sequence[Index],
    radius: float,
    factor: float | None = None,
) -> Blur:
    """Return the blur that leaves as much noise in a scan as a restoration does.

    Noise is the sd in discs of two radii around the sites, in homogeneous tissue, each after a
    plane is taken away. Where low quality is not noise (MRI) the sd of the blur is half a pixel of
    what was measured.

    Args:
        low: the low-quality scan.
        restored: its restored form.
        task: its task.
        sites: places in homogeneous tissue.
        radius: in mm.
        factor: reduction of the measurement; None for that of the task.
    """
    pixel, axis = pixel_of(low), slice_axis(low, task)
    if task.rules.noise_unit is None:
        return Blur(task, (factor or task.factor) / 2 * pixel)
    reach = max(int(2 * radius / pixel), 2)
    halo = reach + int(3 * _WIDEST)
    wanted = _noise(_around(restored, axis, sites, reach))
    windows = _around(low, axis, sites, halo)

    def excess(sd: float) -> float:
        middle = slice(halo - reach, halo + reach + 1)
        smooth = gaussian_filter(windows, (0, sd, sd))[:, middle, middle]
        return _noise(smooth) - wanted

    ends = (0.05, _WIDEST)
    if excess(ends[0]) <= 0 or excess(ends[1]) >= 0:
        sd = ends[0] if excess(ends[0]) <= 0 else ends[1]
    else:
        sd = float(brentq(excess, *ends, xtol=0.01))
    return Blur(task, sd * pixel)


def _around(volume: Volume, axis: int, sites: Sequence[Index], reach: int) -> NDArray[np.float64]:
    """Squares (N, side, side) of slices around sites, repeated beyond the border."""
    slices = volume.slices(axis)
    offsets = np.arange(-reach, reach + 1)
    windows = []
    for site in sites:
        row, column = (site[other] for other in range(3) if other != axis)
        rows = (row + offsets).clip(0, slices.shape[1] - 1)
        columns = (column + offsets).clip(0, slices.shape[2] - 1)
        windows.append(slices[site[axis]][np.ix_(rows, columns)])
    return np.stack(windows).astype(np.float64)


def _noise(windows: NDArray[np.float64]) -> float:
    """Root mean square of the inscribed discs of squares (N, side, side) without their planes."""
    reach = windows.shape[1] // 2
    place = np.arange(-reach, reach + 1)
    inside = np.hypot(place[:, None], place) <= reach
    rows, columns = (part[inside] for part in np.meshgrid(place, place, indexing="ij"))
    plane = np.stack([np.ones(len(rows)), rows, columns], axis=1)
    values = windows[:, inside].T
    fitted, *_ = np.linalg.lstsq(plane, values, rcond=None)
    return float(np.sqrt(np.mean((values - plane @ fitted) ** 2)))
