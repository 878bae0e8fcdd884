"""Where a scan shows a body."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from restore_rwkv.evaluation.fidelity.results import RestoredPair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.io import Volume

_BLUR = 3.0  # mm, or pixels without geometry; so that noise does not shape the body
_BODY = -500.0  # HU
_LEVEL = 0.2  # of the mean of what lies above the mean

_FOUND: WeakKeyDictionary[RestoredPair, NDArray[np.bool_]] = WeakKeyDictionary()


def foreground(pair: RestoredPair) -> NDArray[np.bool_]:
    """Return where the slices (N, H, W) of a pair show a body, holes such as lungs included.

    CT: above -500 HU; otherwise above a fifth of the mean of what lies above the mean; both after
    a Gaussian of 3 mm, in the scan or in the restored image. It is found once for each pair, and
    cannot be written to.
    """
    found = _FOUND.get(pair)
    if found is None:
        found = _FOUND[pair] = _foreground(pair)
        found.flags.writeable = False
    return found


def _foreground(pair: RestoredPair) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_fill_holes

    smooth = np.maximum(smoothed(pair.before, pair), smoothed(pair.after, pair))
    limit = _limit(smooth, pair)
    return np.stack([binary_fill_holes(image > limit) for image in smooth])


def smoothed(volume: Volume, pair: RestoredPair) -> NDArray[np.float32]:
    """Return the slices (N, H, W) of a volume of a pair under a Gaussian of 3 mm."""
    from scipy.ndimage import gaussian_filter

    spacing = pair.after.spacing or (1.0, 1.0, 1.0)
    sigma = [0.0, *(_BLUR / side for axis, side in enumerate(spacing) if axis != pair.axis)]
    smooth: NDArray[np.float32] = gaussian_filter(volume.slices(pair.axis), sigma)
    return smooth


def tissue_level(pair: RestoredPair) -> float:
    """Return the value above which the scan of a pair shows tissue, in its unit."""
    return _limit(pair.before.data, pair)


def _limit(images: NDArray[np.float32], pair: RestoredPair) -> float:
    if pair.task.modality == "CT":
        return _BODY
    # At most the largest value: the mean of equal values can be rounded beyond them.
    return _LEVEL * float(images[images >= min(images.mean(), images.max())].mean())
