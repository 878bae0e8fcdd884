"""CT: a restored image against the noise of its scan, which is simulated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import OperatorError
from restore_rwkv.evaluation.fidelity.ct_figures import noise_figures, shift_figures
from restore_rwkv.evaluation.fidelity.detector import Detector, threshold_of
from restore_rwkv.evaluation.fidelity.extremes import exceeded_rarely
from restore_rwkv.evaluation.fidelity.foreground import foreground
from restore_rwkv.evaluation.fidelity.noise_maps import between, mirrored_variance
from restore_rwkv.evaluation.fidelity.reasons import reason_of
from restore_rwkv.evaluation.fidelity.results import FidelityMap, Figure, RestoredPair, Support
from restore_rwkv.evaluation.measures.measure import NoScoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from restore_rwkv.io import Progress, Volume

_RADIUS = 5.0  # mm
_WIDTH = 5.0  # mm; sd of G. Of 2.5, 3.5 and 5 mm the one that finds discs of 5 mm radius best
_REALISATIONS = 8
_EVERY = 8  # slices between those whose noise is simulated, so that it costs less than restoration
_FEWEST, _MOST = 3, 12  # of these
_TOGETHER = 4  # of these: projecting some at a time costs little more than one, but memory
_SMOOTH = 10.0  # mm; over which the variance of noise is smoothed
_LEAST_SPREAD = 0.1  # of the median in the body
_AIR = -1024.0
_BEYOND = 3.0


class CTDetector(Detector):
    """Structure that was removed or added, over the noise of this scan.

    The score is the matched filter `G*(y - x) / sd(G*n)` (Barrett & Myers, Foundations of Image
    Science, 2004, section 13.2, with a Gaussian for the signal and the noise taken as white): y the
    scan, x the restored image, G a Gaussian of `radius_mm` standard deviation within the slices,
    and n the noise of this scan: that of a scanner which is fitted to y (`physics.ct.calibrated`),
    inserted into x. Its variance comes from 8 realisations in every eighth slice, 3 to 12 of them,
    smoothed over 10 mm and interpolated between them. Outside the body scores are 0. G mirrors
    images at their borders, in scores as in their variance (`mirrored_variance`).

    Attributes:
        radius_mm: 5 mm.
        simulated_threshold: absolute score that the simulated noise exceeds in 5 % of scans.
    """

    def __init__(self, pair: RestoredPair, progress: Progress | None = None) -> None:
        """Prepare the detector: fit a scanner to the noise of the scan, and simulate it.

        Raises:
            NoScoreError: the pair has no geometry, or too little soft tissue to measure its noise.
        """
        spacing = pair.after.spacing
        if spacing is None:
            raise NoScoreError("the scan has no geometry, so the size of a lesion is not known")
        self.radius_mm = _RADIUS
        rows, columns = (side for axis, side in enumerate(spacing) if axis != pair.axis)
        self._pixel = (rows, columns)
        self._body = foreground(pair)
        if not self._body.any():
            raise NoScoreError("the scan shows no body")
        self._simulate(pair, progress)

    def _simulate(self, pair: RestoredPair, progress: Progress | None) -> None:
        """Find the standard deviation of G*n in each slice, and the largest scores of noise."""
        import torch

        from restore_rwkv.physics.ct import CTScanner, OwnNoise, calibrated

        before, after = (
            torch.from_numpy(np.maximum(volume.slices(pair.axis), _AIR))
            for volume in (pair.before, pair.after)
        )
        count = len(after)
        chosen = min(count, max(_FEWEST, min(_MOST, count // _EVERY)))
        places = ((np.arange(chosen) + 0.5) * count / chosen).astype(int)
        generator = torch.Generator().manual_seed(pair.seed)
        rim = mirrored_variance(before.shape[1:], *(_WIDTH / side for side in self._pixel))
        power, drawn = [], []
        try:
            scanner = calibrated(CTScanner(), before, self._pixel)
            for first in range(0, chosen, _TOGETHER):
                some = after[places[first : first + _TOGETHER]]
                noise = OwnNoise(some, self._pixel, scanner).draw_several(generator, _REALISATIONS)
                for images in noise.transpose(0, 1).numpy():
                    drawn.append(self._filtered(images, _WIDTH))
                    squares = np.divide(np.square(drawn[-1]), rim, dtype=np.float32)
                    power.append(np.multiply(self._filtered(squares, _SMOOTH), rim))
                if progress is not None:
                    progress(len(drawn), chosen)
        except OperatorError as error:
            raise NoScoreError(f"the noise of the scan: {reason_of(error)}") from error
        variance = np.stack([each.mean(axis=0) for each in power])
        spread = np.sqrt(between(variance, places, count))
        least = np.float32(_LEAST_SPREAD * np.median(spread[self._body]))
        self._spread: NDArray[np.float32] = np.maximum(spread, least)
        maxima = [
            np.sqrt((square / np.maximum(rest, least**2))[self._body[place]].max())
            for place, images, powers in zip(places, drawn, power, strict=True)
            if self._body[place].any()
            for square, rest in zip(np.square(images), _of_others(powers), strict=True)
        ]
        self.simulated_threshold = exceeded_rarely(maxima, count)

    def scores(
        self, before: NDArray[np.float32], after: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return scores, above 0 where the restored image is darker than the scan."""
        removed = np.maximum(before, _AIR) - np.maximum(after, _AIR)
        scores: NDArray[np.float32] = self._filtered(removed, _WIDTH) / self._spread
        scores[~self._body] = 0
        return scores

    def map_of(self, values: Volume) -> FidelityMap:
        """Return the map of scores, a volume on the grid of the restored image."""
        found = self.simulated_threshold
        return FidelityMap(
            name="removed",
            title="structure removed or added",
            volume=values,
            unit="",
            limit=max(4.0, found or 0.0),
            threshold=found,
            signed=True,
            meaning="How many standard deviations of the simulated noise of this scan were removed "
            f"(above 0) or added (below 0), in a disc of {self.radius_mm:g} mm radius.",
            blind_to="It cannot see a lesion that the noise of the scan hides already, changes "
            "much smaller or larger than the disc, and whether a smoothed edge was a lesion.",
        )

    def _filtered(self, images: NDArray[np.float32], width: float) -> NDArray[np.float32]:
        from scipy.ndimage import gaussian_filter

        sigma = (0, *(width / side for side in self._pixel))
        filtered: NDArray[np.float32] = gaussian_filter(images, sigma)
        return filtered


def ct_figures(
    pair: RestoredPair,
    detector: Detector | None,
    scores: NDArray[np.float32] | None,
    reason: str = "",
) -> list[Figure]:
    """Return the figures of a restored CT scan.

    They are the largest score and the share of the body that is beyond 3, the shift of CT numbers
    by tissue, and the noise and its frequency before and after. `reason` says why there is no
    detector.
    """
    if detector is None or scores is None:
        found = _no_scores(reason or "the noise of the scan is not known")
    else:
        found = _scores(pair, detector, scores)
    return [*found, *shift_figures(pair), *noise_figures(pair)]


def _no_scores(reason: str) -> list[Figure]:
    names = {
        "largest_score": "largest change over the noise of the scan",
        "beyond_3": "share of the body where more than three standard deviations changed",
    }
    return [
        Figure(
            name=name,
            title=title,
            value=None,
            unit="%" if name == "beyond_3" else "",
            support="unknown",
            expected="as noise has it",
            says="Whether what was removed looks like noise is not known.",
            blind_to="",
            reason=reason,
        )
        for name, title in names.items()
    ]


def _scores(pair: RestoredPair, detector: Detector, scores: NDArray[np.float32]) -> list[Figure]:
    size = np.abs(scores[foreground(pair)])
    largest, share = float(size.max()), 100 * float(np.mean(size > _BEYOND))
    expected = 100 * math.erfc(_BEYOND / math.sqrt(2))
    limit = threshold_of(pair, detector)
    worst: Support = "supported" if limit is None or largest <= limit else "look"
    return [
        Figure(
            name="largest_score",
            title="largest change over the noise of the scan",
            value=largest,
            unit="",
            support=worst,
            expected="as noise has it" if limit is None else f"below {limit:.1f}",
            says=f"In a disc of {detector.radius_mm:g} mm radius up to {largest:.1f} standard "
            "deviations of noise were removed or added.",
            blind_to="It cannot see a lesion that the noise of the scan hides already.",
        ),
        Figure(
            name="beyond_3",
            title="share of the body where more than three standard deviations changed",
            value=share,
            unit="%",
            support="supported" if share <= 2 * expected else "look",
            expected=f"about {expected:.2f} % for noise, less for a cautious restoration",
            says=f"{share:.3g} % of the body changed by more than noise usually does.",
            blind_to="It cannot say where; the map does.",
        ),
    ]


def _of_others(powers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return for each realisation (K, H, W) the mean power of the others.

    The variance of a scan is not from its own noise; with it, simulated scores are too small.
    """
    mean: NDArray[np.float32] = (powers.sum(axis=0) - powers) / (len(powers) - 1)
    return mean
