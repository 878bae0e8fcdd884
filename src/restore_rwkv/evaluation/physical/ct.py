"""CT: mean shift of the CT number in each tissue."""

from __future__ import annotations

import functools
from types import MappingProxyType

import numpy as np
from scipy import ndimage

from restore_rwkv.errors import ConfigError
from restore_rwkv.evaluation.measures.measure import Measure, NoScoreError, Setting, Values
from restore_rwkv.evaluation.measures.score_checks import pair_of

TISSUE_RANGES = MappingProxyType(
    {
        "air": (-1100.0, -900.0),
        "lung": (-900.0, -500.0),
        "fat": (-190.0, -30.0),
        "soft-tissue": (-29.0, 150.0),
        "bone": (300.0, 3072.0),
    }
)
"""Ranges of the true CT number in HU.

Air and bone as in the records of restored scans; lung that is normally aerated as in Gattinoni et
al., Am J Respir Crit Care Med 164:1701 (2001); fat and soft tissue, as skeletal muscle, as in
Mitsiopoulos et al., J Appl Physiol 85:115 (1998).
"""

_SOURCES = {
    "air": "range as in the record of a restored scan",
    "lung": "normal aeration in Gattinoni et al., Am J Respir Crit Care Med 164:1701 (2001)",
    "fat": "adipose tissue in Mitsiopoulos et al., J Appl Physiol 85:115 (1998)",
    "soft-tissue": "skeletal muscle in Mitsiopoulos et al., J Appl Physiol 85:115 (1998)",
    "bone": "range as in the record of a restored scan",
}
_WINDOW = 5  # pixels; so that the noise of a pixel hardly decides where it belongs
_FEWEST = 200  # voxels


def tissue_mean_shift(restored: Values, truth: Values, tissue: str) -> float:
    """Mean of restored less true CT numbers in a tissue, in HU.

    A voxel belongs to a tissue if the mean of the truth over 5 x 5 pixels lies in its range, there
    and at the eight pixels around it, so that edges whose mixed values fall in the range are left
    out.

    Args:
        restored: (N, H, W) in HU.
        truth: equal in shape.
        tissue: a key of `TISSUE_RANGES`.

    Raises:
        ConfigError: the tissue is unknown.
        InputError: the shapes differ, or are not (N, H, W).
        NoScoreError: fewer than 200 voxels belong to the tissue, or a value is not finite.
    """
    if tissue not in TISSUE_RANGES:
        raise ConfigError(f"tissue {tissue!r} is unknown; give {', '.join(TISSUE_RANGES)}")
    restored, truth = pair_of(restored, truth, axes=3)
    low, high = TISSUE_RANGES[tissue]
    smooth = ndimage.uniform_filter(truth, (1, _WINDOW, _WINDOW), mode="nearest")
    inside = (smooth >= low) & (smooth <= high)
    inside = ndimage.binary_erosion(inside, np.ones((1, 3, 3), dtype=bool), border_value=1)
    if (count := int(inside.sum())) < _FEWEST:
        raise NoScoreError(f"the truth has {count} voxels of {tissue}, too few")
    return float(np.mean(restored[inside] - truth[inside]))


def _shift(restored: Values, truth: Values, _setting: Setting, *, tissue: str) -> float:
    return tissue_mean_shift(restored, truth, tissue)


def _measure(tissue: str) -> Measure:
    low, high = TISSUE_RANGES[tissue]
    return Measure(
        name=f"hu-shift.{tissue}",
        title=f"Shift in {tissue.replace('-', ' ')}",
        unit="HU",
        better="zero",
        bounds=(-np.inf, np.inf),
        of="volume",
        modalities=("CT",),
        equation="mean(restored - truth) over voxels in which the truth, smoothed by 5 x 5 pixels, "
        f"is between {low:g} and {high:g} HU, as it is at the eight around them",
        source=_SOURCES[tissue],
        blind_to="Errors that cancel within the tissue, such as noise and blur; edges; which organ "
        "it is, as the range stands for the tissue. Voxels are chosen by a truth with noise, so "
        "that tissue near an end of the range seems to shift beyond it.",
        compute=functools.partial(_shift, tissue=tissue),
    )


CT_MEASURES = tuple(_measure(tissue) for tissue in TISSUE_RANGES)
