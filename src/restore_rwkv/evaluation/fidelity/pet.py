"""PET: a restored image against the counts of its scan, whose noise is simulated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import OperatorError
from restore_rwkv.evaluation.fidelity.detector import Detector
from restore_rwkv.evaluation.fidelity.extremes import exceeded_in_field
from restore_rwkv.evaluation.fidelity.noise_maps import between, mirrored_variance
from restore_rwkv.evaluation.fidelity.pet_noise import simulate_noise
from restore_rwkv.evaluation.fidelity.pet_regions import Regions
from restore_rwkv.evaluation.fidelity.reasons import reason_of
from restore_rwkv.evaluation.fidelity.results import FidelityMap, Figure, RestoredPair, Support
from restore_rwkv.io import plane_axis
from restore_rwkv.tasks.modality import spread_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.io import Progress, Volume
    from restore_rwkv.physics.pet import PETScanner

_RADIUS = 5.0  # mm
_RESOLUTION = 6.0  # mm; FWHM of a clinical scanner with its filter
_SIGMA = 1 / math.sqrt(8 * math.log(2))  # of a Gaussian over its FWHM
_SMOOTH = 16.0  # mm; over which the noise is smoothed
_LEAST_SPREAD = 0.25  # of the median in the foreground
_TOTAL = (2.0, 5.0)  # %; change of the total activity to look at, and that is too much
_SHIFT = (5.0, 10.0)  # %; of the mean of a region, beyond its noise
_NOISE_SDS = 3.0


class PETDetector(Detector):
    """Activity that was removed or added, over the noise of this scan.

    The score is `G*(y - x) / sd(G*n)`: y the scan, x the restored image, n noise simulated in
    transaxial slices with x as the activity, at the counts that the noise of y implies
    (`physics.pet.calibrated`), and G a Gaussian in three dimensions with the standard deviation of
    a sphere of `radius_mm` seen at 6 mm resolution, `sqrt(radius^2 / 5 + (6 mm / 2.355)^2)`. The
    variance of G*n is `c G*x`, as that of counts, with c from eight slices, smoothed over 16 mm
    and interpolated between them. G mirrors images at their borders, in scores as in their
    variance (`mirrored_variance`). Outside the foreground scores are 0.

    Attributes:
        radius_mm: 5 mm.
        simulated_threshold: absolute score that Gaussian noise of this variance exceeds in 5 % of
            scans (`exceeded_in_field`).
        noise: what was simulated.
    """

    def __init__(self, pair: RestoredPair, progress: Progress | None = None) -> None:
        """Prepare the detector: fit the counts to the noise of the scan and simulate it.

        Raises:
            NoScoreError: the pair has no geometry, pixels are not square, the foreground is too
                small, or the noise cannot be measured or explained by counts.
        """
        self.radius_mm = _RADIUS
        self.noise = simulate_noise(pair, progress)
        self._width = math.sqrt(_RADIUS**2 / 5 + (_RESOLUTION * _SIGMA) ** 2)  # mm
        spacing = pair.after.spacing or (1.0, 1.0, 1.0)
        variance = self._variance(pair.after, spacing)
        # Scores are 0 where nothing could be simulated.
        weight = np.where(self.noise.foreground, 1 / np.sqrt(variance), 0).astype(np.float32)
        self._weight = np.moveaxis(weight, pair.axis, 0)
        self._sigma = [self._width / spacing[pair.axis]]
        self._sigma += [self._width / s for axis, s in enumerate(spacing) if axis != pair.axis]
        searched = float(self.noise.foreground.sum()) * math.prod(spacing)
        self.simulated_threshold = exceeded_in_field(searched, self._width)

    def scores(
        self, before: NDArray[np.float32], after: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return scores (N, H, W) of a scan and a restored image of it, both (N, H, W).

        They are above 0 where activity was removed, and 0 outside the foreground.
        """
        from scipy.ndimage import gaussian_filter

        scores: NDArray[np.float32] = gaussian_filter(before - after, self._sigma) * self._weight
        return scores

    def map_of(self, values: Volume) -> FidelityMap:
        """Return the map of scores, a volume on the grid of the restored image."""
        found = self.simulated_threshold
        return FidelityMap(
            name="removed",
            title="activity removed or added",
            volume=values,
            unit="",
            limit=max(5.0, found or 0.0),
            threshold=found,
            signed=True,
            meaning="How many standard deviations of the simulated noise of this scan were removed "
            f"(above 0) or added (below 0), in a sphere of {self.radius_mm:g} mm radius.",
            blind_to="It cannot see a change that is smaller than the noise: at a twelfth of the "
            "dose, a sphere of 5 mm radius with less than twice the uptake around it. The texture "
            "of the noise is that of the simulated scanner, not of yours.",
        )

    def _variance(self, after: Volume, spacing: tuple[float, float, float]) -> NDArray[np.float32]:
        """Variance of G*n, (X, Y, Z)."""
        from scipy.ndimage import gaussian_filter

        noise = self.noise
        pixel, across = noise.scanner.pixel, spacing[noise.axis]
        gain = _axial_gain(after.data.shape[noise.axis], self._width, noise.scanner, across)
        drawn = gaussian_filter(noise.images, (0, 0, *(self._width / pixel,) * 2))
        sigma = [self._width / side for side in spacing]
        mean = np.moveaxis(gaussian_filter(np.maximum(after.data, 0), sigma), noise.axis, 0)
        inside = np.moveaxis(noise.foreground, noise.axis, 0)
        # A floor, as noise does not vanish where the image does.
        mean = np.maximum(mean, _LEAST_SPREAD * np.median(mean[inside]))
        smooth = (0, *(_SMOOTH / pixel,) * 2)
        rim = mirrored_variance(drawn.shape[2:], self._width / pixel)
        share = gaussian_filter(np.square(drawn).mean(axis=0) / rim, smooth)
        share /= gaussian_filter(mean[noise.chosen], smooth)
        variance = mean * between(share, noise.chosen, len(mean)) * (rim * gain[:, None, None] ** 2)
        variance = np.maximum(variance, _LEAST_SPREAD**2 * np.median(variance[inside]))
        return np.moveaxis(variance, 0, noise.axis)


def pet_maps(
    pair: RestoredPair, detector: Detector | None, scores: NDArray[np.float32] | None
) -> list[FidelityMap]:
    """Return the map of the change of the mean uptake by region; none without a detector."""
    if not isinstance(detector, PETDetector):
        return []
    regions = Regions.of(pair, detector.noise)
    return [
        FidelityMap(
            name="region_shift",
            title="change of the mean uptake by region",
            volume=pair.after.with_data(regions.painted(pair.after.data.shape)),
            unit="%",
            limit=_SHIFT[1],
            threshold=_SHIFT[0],
            signed=True,
            meaning="How much the mean uptake (SUVmean) of each block of the foreground changed.",
            blind_to="It cannot see changes within a block that cancel each other.",
        )
    ]


def pet_figures(
    pair: RestoredPair,
    detector: Detector | None,
    scores: NDArray[np.float32] | None,
    reason: str = "",
) -> list[Figure]:
    """Return the figures of a restored PET scan.

    They are the change of the total activity, the largest change of SUVmean in a region, the share
    of negative values, and the noise before and after. `reason` says why there is no detector.
    """
    return [_total(pair), _regions(pair, detector, reason), _negative(pair), *_noise(pair)]


def _total(pair: RestoredPair) -> Figure:
    before, after = (float(v.data.sum(dtype=np.float64)) for v in (pair.before, pair.after))
    known = before > 0
    value = 100 * (after / before - 1) if known else None
    support: Support = "unknown"
    says = "The scan has no activity to compare with."
    if value is not None:
        support = _graded(abs(value), _TOTAL)
        says = f"The image has {100 + value:.1f} % of the activity of the scan."
    return Figure(
        name="total_activity",
        title="change of the total activity",
        value=value,
        unit="%",
        support=support,
        expected=f"within ±{_TOTAL[0]:g} %",
        says=says,
        blind_to="It cannot see activity that moved from one place to another.",
        reason="" if known else "the scan has no activity",
    )


def _regions(pair: RestoredPair, detector: Detector | None, reason: str) -> Figure:
    value: float | None = None
    support: Support = "unknown"
    reason = reason or "the noise of the scan is not known"
    says = ""
    if isinstance(detector, PETDetector):
        regions = Regions.of(pair, detector.noise)
        reason = "" if len(regions.shift) else "no region is large enough"
        if not reason:
            value, support, says = _largest(regions)
    says = says or f"The change of regions cannot be judged: {reason}."
    return Figure(
        name="region_shift",
        title="largest change of SUVmean in a region",
        value=value,
        unit="%",
        support=support,
        expected=f"within ±{_SHIFT[0]:g} % or three standard deviations of the noise",
        says=says,
        blind_to="Regions are blocks of the foreground, not organs: it cannot see a small lesion.",
        reason=reason,
    )


def _largest(regions: Regions) -> tuple[float, Support, str]:
    """Return the largest change beyond noise in %, what it speaks for, and a sentence."""
    sds = np.abs(regions.shift) / regions.noise
    beyond = np.where(sds > _NOISE_SDS, np.abs(regions.shift), 0)
    worst = int(beyond.argmax()) if beyond.any() else int(np.abs(regions.shift).argmax())
    support = _graded(float(beyond.max()), _SHIFT)
    says = (
        f"Of {len(sds)} regions, the mean of {int((sds > _NOISE_SDS).sum())} changed by more than "
        f"three standard deviations of its noise; the largest change is {regions.shift[worst]:+.1f}"
        f" % where noise explains {regions.noise[worst]:.1f} %."
    )
    return float(regions.shift[worst]), support, says


def _graded(size: float, limits: tuple[float, float]) -> Support:
    if size <= limits[0]:
        return "supported"
    return "look" if size <= limits[1] else "unsupported"


def _negative(pair: RestoredPair) -> Figure:
    share = 100 * float(np.mean(pair.after.data < 0))
    own = 100 * float(np.mean(pair.before.data < 0))
    says = (
        "No value is below 0, as it should be for activity."
        if share == 0
        else f"{share:.3g} % of the values are below 0, of the scan {own:.3g} %."
    )
    support: Support = "supported" if share <= own else "look" if share < 1 else "unsupported"
    return Figure(
        name="negative",
        title="values below 0",
        value=share,
        unit="%",
        support=support,
        expected="0 %, or no more than the scan has",
        says=says,
        blind_to="It says nothing about values above 0.",
    )


def _noise(pair: RestoredPair) -> list[Figure]:
    """Noise of the scan and of the restored image."""
    import torch

    from restore_rwkv.physics.pet import noise_level

    axis = pair.axis if pair.after.affine is None else plane_axis(pair.after.affine, "axial")
    levels, reason = [], ""
    try:
        for volume in (pair.before, pair.after):
            levels.append(100 * noise_level(torch.from_numpy(spread_slices(volume, axis))))
    except OperatorError as error:
        reason = reason_of(error)
    figures = []
    for place, when in enumerate(("before", "after")):
        value = None if reason else levels[place]
        support: Support = "unknown"
        says = f"The noise {when} restoration cannot be measured: {reason}."
        if value is not None:
            support = "look" if place and levels[1] > levels[0] else "supported"
            says = f"Fine noise {when} restoration is {value:.3g} % of the uptake."
        figures.append(
            Figure(
                name=f"noise_{when}",
                title=f"noise {when} restoration",
                value=value,
                unit="%",
                support=support,
                expected="less after restoration than before",
                says=says,
                blind_to="It cannot see coarse noise, nor tell noise from fine structure.",
                reason=reason,
            )
        )
    return figures


def _axial_gain(
    count: int, width: float, scanner: PETScanner, spacing: float
) -> NDArray[np.float32]:
    """Standard deviation of noise under the axial filter and G over that without, (count,).

    Both filters mirror the stack at its ends, as those of the scanner and of the scores do: the
    last slices average fewer independent ones.
    """
    import torch

    from restore_rwkv.physics.slices import gaussian_matrix

    like = torch.zeros(1, dtype=torch.float64)
    weights = gaussian_matrix(count, width / _SIGMA / spacing, like)
    weights = weights @ gaussian_matrix(count, scanner.post_filter / spacing, like)
    gain: NDArray[np.float32] = weights.square().sum(dim=1).sqrt().float().numpy()
    return gain
