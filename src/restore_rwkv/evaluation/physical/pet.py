"""PET: recovery of the activity of spheres, and bias of uptake and of total activity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, signal

from restore_rwkv.errors import InputError
from restore_rwkv.evaluation.measures.measure import Measure, NoScoreError, Setting, Values
from restore_rwkv.evaluation.measures.score_checks import pair_of
from restore_rwkv.evaluation.physical.contrast import as_region

HOT = 0.41
"""Share of the peak from which the smoothed truth counts as a hot region.

The 41 % isocontour of the EANM's guideline, Boellaard et al., Eur J Nucl Med Mol Imaging 42:328
(2015).
"""

_FEWEST = 20  # voxels of a region
_FEWEST_DISCS = 4


@dataclass(frozen=True, kw_only=True)
class Sphere:
    """A sphere of one activity in a phantom.

    Attributes:
        centre: indices of its centre along the three axes of the image, in voxels.
        diameter_mm: in mm.
    """

    centre: tuple[float, float, float]
    diameter_mm: float


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How much of the activity of one sphere an image shows.

    Attributes:
        diameter_mm: of the sphere.
        mean: mean of the image over the sphere divided by that of the truth; 1 is perfect.
        maximum: largest value in the sphere divided by that of the truth; noise raises it above 1.
        contrast: contrast recovery of NEMA NU 2, in %; 100 is perfect. None where the true activity
            is that of the background.
        background_variability: of NEMA NU 2, in %; None where the background has no room for four
            discs of the sphere's diameter.
    """

    diameter_mm: float
    mean: float
    maximum: float
    contrast: float | None
    background_variability: float | None


def recovery_coefficients(
    image: ArrayLike,
    truth: ArrayLike,
    spheres: Sequence[Sphere],
    background: NDArray[np.generic],
    spacing_mm: tuple[float, float, float],
) -> tuple[Recovery, ...]:
    """Measure the recovery of hot or cold spheres in a warm background, by NEMA NU 2-2018, 7.

        mean = mean(image in the sphere) / mean(truth in the sphere)
        maximum = max(image in the sphere) / max(truth in the sphere)
        contrast = 100 (mean_sphere / mean_background - 1) / (true ratio - 1)
        background variability = 100 sd(means of discs) / mean(means of discs)

    A voxel is in the sphere if its centre is. Where the truth has voxels that lie in part outside,
    its own mean is below the activity that was filled in (10 % for 10 mm and voxels of 2 mm, four
    times as active as the background), and recovery compares with what such voxels can show.

    The discs have the diameter of the sphere and lie side by side in the background, in planes
    across the last axis that are a diameter apart; NEMA has 60 of them in five planes at chosen
    places, and takes discs instead of spheres for the contrast of hot spheres too. It is blind to
    how the activity is distributed within a sphere, and to noise of less than its size.

    Args:
        image: (X, Y, Z), in any unit.
        truth: the activity, equal in shape and unit.
        spheres: what to measure; each needs a voxel centre inside.
        background: bool, or 0 and 1, equal in shape: where the truth is the background, away from
            the spheres.
        spacing_mm: distance of voxels along each axis in mm.

    Raises:
        InputError: shapes differ, values are not finite, a sphere has no voxel, or the background
            is not of 0 and 1.
        NoScoreError: the truth is 0 in a sphere, or the background has no voxels or no activity.
    """
    values, true = (np.asarray(array, dtype=np.float64) for array in (image, truth))
    region = as_region(background, "background")
    if values.ndim != 3 or not values.shape == true.shape == region.shape:
        raise InputError(
            f"image is {values.shape}, truth {true.shape}, background {region.shape}; give "
            "equal (X, Y, Z)"
        )
    if not (np.isfinite(values).all() and np.isfinite(true).all()):
        raise InputError("image or truth has values that are not finite; replace them first")
    if not region.any() or values[region].mean() <= 0 or true[region].mean() <= 0:
        raise NoScoreError("the background has no activity")
    around, true_around = float(values[region].mean()), float(true[region].mean())
    found = []
    for sphere in spheres:
        inside = _inside(sphere, values.shape, spacing_mm)
        activity = float(true[inside].mean())
        if activity <= 0:
            raise NoScoreError(f"the truth is 0 in the sphere of {sphere.diameter_mm:g} mm")
        mean, ratio = float(values[inside].mean()), activity / true_around
        discs = _disc_means(values, region, sphere.diameter_mm, spacing_mm)
        found.append(
            Recovery(
                diameter_mm=sphere.diameter_mm,
                mean=mean / activity,
                maximum=float(values[inside].max() / true[inside].max()),
                contrast=None if np.isclose(ratio, 1) else 100 * (mean / around - 1) / (ratio - 1),
                background_variability=None
                if len(discs) < _FEWEST_DISCS
                else 100 * float(discs.std(ddof=1) / discs.mean()),
            )
        )
    return tuple(found)


def hot_regions(truth: Values, peak: float) -> tuple[NDArray[np.int32], int]:
    """Find the connected regions of high uptake in a true image.

    A voxel is hot where the mean of the truth over 3 x 3 pixels of its slice is at least 0.41 of
    the peak of that mean; a region has at least 20 voxels, which touch by their sides.

    Args:
        truth: (N, H, W).
        peak: largest value of the truth in the scan; regions of slices without hot voxels are none.

    Returns:
        Number of the region of each voxel, from 1; 0 elsewhere. And how many regions there are.

    Raises:
        NoScoreError: there is none.
    """
    smooth = ndimage.uniform_filter(truth, (1, 3, 3), mode="nearest")
    threshold = HOT * min(peak, float(smooth.max()))
    labels, count = ndimage.label((smooth >= threshold) & (smooth > 0))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = np.flatnonzero(sizes[1:] >= _FEWEST) + 1
    if len(kept) == 0:
        raise NoScoreError(f"the truth has no hot region of {_FEWEST} voxels")
    number = np.zeros(count + 1, dtype=np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    return number[labels], len(kept)


def _inside(
    sphere: Sphere, shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    axes = (
        (np.arange(count) - place) * side
        for count, place, side in zip(shape, sphere.centre, spacing_mm, strict=True)
    )
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    inside: NDArray[np.bool_] = x**2 + y**2 + z**2 <= (sphere.diameter_mm / 2) ** 2
    if not inside.any():
        raise InputError(
            f"sphere of {sphere.diameter_mm:g} mm at {sphere.centre} has no voxel; give its centre "
            "in voxels"
        )
    return inside


def _disc_means(
    image: Values,
    background: NDArray[np.bool_],
    diameter_mm: float,
    spacing_mm: tuple[float, float, float],
) -> Values:
    """Means of discs of a diameter that lie side by side in the background."""
    reach = [int(diameter_mm / 2 / side) for side in spacing_mm[:2]]
    x, y = (np.arange(-r, r + 1) * side for r, side in zip(reach, spacing_mm[:2], strict=True))
    disc = (x[:, None] ** 2 + y**2 <= (diameter_mm / 2) ** 2).astype(float)
    disc /= disc.sum()
    steps = [max(round(diameter_mm / side), 1) for side in spacing_mm]
    means = []
    for plane in range(steps[2] // 2 % image.shape[2], image.shape[2], steps[2]):
        inner = signal.fftconvolve(background[..., plane].astype(float), disc, mode="same")
        mean = signal.fftconvolve(image[..., plane], disc, mode="same")
        chosen = np.s_[
            reach[0] : -reach[0] or None : steps[0], reach[1] : -reach[1] or None : steps[1]
        ]
        means.append(mean[chosen][inner[chosen] > 1 - 1e-6])
    return np.concatenate(means)


def _suv_mean_bias(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth, axes=3)
    labels, count = hot_regions(truth, setting.peak)
    index = np.arange(1, count + 1)
    found, true = (ndimage.mean(image, labels, index) for image in (restored, truth))
    return float(100 * np.mean(np.asarray(found) / np.asarray(true) - 1))


def _activity_bias(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth, axes=3)
    total = float(truth.sum())
    if total <= 0:
        raise NoScoreError("the truth has no activity")
    return 100 * (float(restored.sum()) / total - 1)


PET_MEASURES = (
    Measure(
        name="suv-mean-bias",
        title="Bias of SUVmean",
        unit="%",
        better="zero",
        bounds=(-np.inf, np.inf),
        of="volume",
        modalities=("PT",),
        equation="100 mean over regions of (SUVmean restored / SUVmean true - 1); regions: "
        "connected voxels of at least 0.41 of the peak of the truth, smoothed by 3 x 3 pixels, "
        "20 voxels or more, each with the same weight",
        source="41 % isocontour as in Boellaard et al., Eur J Nucl Med Mol Imaging 42:328 (2015)",
        blind_to="Uptake below 0.41 of the peak, and errors that cancel within a region or between "
        "regions. Regions are chosen by a truth with noise, so that an image without it has a "
        "slightly negative bias.",
        compute=_suv_mean_bias,
    ),
    Measure(
        name="activity-bias",
        title="Bias of total activity",
        unit="%",
        better="zero",
        bounds=(-np.inf, np.inf),
        of="volume",
        modalities=("PT",),
        equation="100 (sum of restored / sum of truth - 1), over all voxels",
        source="conservation of counts: MLEM preserves them at each iteration (Shepp & Vardi, IEEE "
        "Trans Med Imaging 1:113, 1982), OSEM nearly, and thinning on average",
        blind_to="Where the activity is: activity that moves from one organ to another leaves it "
        "0.",
        compute=_activity_bias,
    ),
)
