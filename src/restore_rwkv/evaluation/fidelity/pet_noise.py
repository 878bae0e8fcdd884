"""The noise of a PET scan, simulated in some of its transaxial slices."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import OperatorError
from restore_rwkv.evaluation.fidelity.reasons import reason_of
from restore_rwkv.evaluation.fidelity.results import RestoredPair
from restore_rwkv.evaluation.measures.measure import NoScoreError
from restore_rwkv.io import plane_axis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.io import Progress
    from restore_rwkv.physics.pet import PETScanner

_SLICES = 8
_REALISATIONS = 6
_VIEWS = 96  # half those of the scanner: the noise is the same, and the cost half
_BLUR = 4.0  # mm; sd of the Gaussian under which foreground and outline are found
_FOREGROUND, _OUTLINE = 0.25, 0.08  # of the level
_FILLED = 0.2  # of the largest foreground of a slice
_FEWEST = 8  # slices with that much foreground
_MARGIN = 6  # pixels around the outline
_SAME_SIDE = 0.01  # relative


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedNoise:
    """Noise of a scan in some of its transaxial slices.

    Attributes:
        axis: array axis across the transaxial slices.
        foreground: (X, Y, Z), where there is activity; all else is 0 in the scores.
        filled: indices of the slices with much foreground, ascending.
        chosen: those of the simulated slices.
        images: (K, M, H, W), realisations in the chosen slices, without the axial post filter.
        scanner: with the counts per slice that the noise of the scan implies.
    """

    axis: int
    foreground: NDArray[np.bool_]
    filled: NDArray[np.intp]
    chosen: NDArray[np.intp]
    images: NDArray[np.float32]
    scanner: PETScanner


def simulate_noise(pair: RestoredPair, progress: Progress | None = None) -> SimulatedNoise:
    """Fit counts to the noise of the scan of a pair, and simulate eight slices six times.

    Attenuation is that of water within the outline of the activity.

    Raises:
        NoScoreError: the pair has no geometry, pixels are not square, there is too little
            foreground, or the noise cannot be measured or explained by counts.
    """
    import torch

    from restore_rwkv.physics.pet import MU_SOFT, calibrated, scan_noise

    scanner, axis = _scanner(pair)
    mean = _smoothed(pair)
    # At most the largest value: the mean of equal values can be rounded beyond them.
    level = float(mean[mean >= min(mean.mean(), mean.max())].mean())
    foreground = mean > _FOREGROUND * level
    filled = _filled(foreground, axis, level)
    chosen = np.unique(filled[np.linspace(0, len(filled) - 1, _SLICES + 2).round().astype(int)])
    chosen = chosen[1:-1]
    outline = _outline(np.moveaxis(mean, axis, 0)[chosen] > _OUTLINE * level)
    window = _window(outline)
    scan, activity = (
        torch.from_numpy(np.ascontiguousarray(volume.slices(axis)[chosen][window])).clamp(min=0)
        for volume in (pair.before, pair.after)
    )
    mu = torch.from_numpy(outline[window].astype(np.float32) * np.float32(MU_SOFT))
    scanner = replace(scanner, size=max(activity.shape[1:]))
    generator = torch.Generator().manual_seed(pair.seed)
    try:
        scanner = calibrated(scanner, scan, activity, mu=mu, generator=generator)
        noise = scan_noise(
            activity,
            scanner=scanner,
            mu=mu,
            realisations=_REALISATIONS,
            generator=generator,
            progress=progress,
        )
    except OperatorError as error:
        raise NoScoreError(f"the noise of the scan: {reason_of(error)}") from error
    images = np.zeros((_REALISATIONS, *outline.shape), dtype=np.float32)
    images[:, window[0], window[1], window[2]] = noise.numpy()
    return SimulatedNoise(
        axis=axis,
        foreground=foreground,
        filled=filled,
        chosen=chosen,
        images=images,
        scanner=scanner,
    )


def _scanner(pair: RestoredPair) -> tuple[PETScanner, int]:
    """Return the scanner on the grid of the pair, and the axis across its transaxial slices."""
    from restore_rwkv.physics.pet import PETScanner

    affine, spacing = pair.after.affine, pair.after.spacing
    if affine is None or spacing is None:
        raise NoScoreError("the scan has no geometry, so its transaxial slices are not known")
    axis = plane_axis(affine, "axial")
    pixel, other = (side for across, side in enumerate(spacing) if across != axis)
    if not math.isclose(pixel, other, rel_tol=_SAME_SIDE):
        raise NoScoreError(
            f"pixels of its transaxial slices are {pixel:.3g} x {other:.3g} mm, and those of the "
            "simulated scanner are square"
        )
    return PETScanner(pixel=pixel, slice_spacing=spacing[axis], views=_VIEWS, counts=1e5), axis


def _smoothed(pair: RestoredPair) -> NDArray[np.float32]:
    """Return the larger of both images, smoothed, so that noise does not shape the foreground."""
    from scipy.ndimage import gaussian_filter

    sigma = [_BLUR / side for side in pair.after.spacing or (1.0, 1.0, 1.0)]
    smoothed: NDArray[np.float32] = np.maximum(
        *(gaussian_filter(np.maximum(v.data, 0), sigma) for v in (pair.before, pair.after))
    )
    return smoothed


def _filled(foreground: NDArray[np.bool_], axis: int, level: float) -> NDArray[np.intp]:
    across = tuple(other for other in range(3) if other != axis)
    areas = foreground.sum(axis=across)
    filled = np.flatnonzero((areas > 0) & (areas >= _FILLED * areas.max()))
    if not level > 0 or len(filled) < _FEWEST:
        raise NoScoreError(
            f"{len(filled) if level > 0 else 0} transaxial slices show activity, and {_FEWEST} are "
            "needed to simulate its noise"
        )
    return filled


def _outline(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return masks (M, H, W) with their holes filled."""
    from scipy.ndimage import binary_fill_holes

    return np.stack([binary_fill_holes(mask) for mask in masks])


def _window(outline: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Return where (M, H, W) has the outlines, with a margin: a smaller matrix costs less."""
    spans = []
    for axis in (1, 2):
        places = np.flatnonzero(outline.any(axis=tuple({0, 1, 2} - {axis})))
        spans.append(slice(max(int(places[0]) - _MARGIN, 0), int(places[-1]) + 1 + _MARGIN))
    return slice(None), spans[0], spans[1]
