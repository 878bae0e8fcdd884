"""MRI: a restored image against the block of k-space that was measured.

What the low-resolution scan y of an image x would be is known exactly, `D(x) = |P x|`, with P the
projection onto the measured block (`restore_rwkv.physics.mri`). So y - D(x) says where x
contradicts what was measured. Of what x has outside the block, nothing was measured.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from restore_rwkv.errors import OperatorError
from restore_rwkv.evaluation.fidelity.detector import Detector
from restore_rwkv.evaluation.fidelity.extremes import exceeded_rarely
from restore_rwkv.evaluation.fidelity.mri_agreement import agreement
from restore_rwkv.evaluation.fidelity.mri_parts import CANNOT_SEE, block_factor, difference, parts
from restore_rwkv.evaluation.fidelity.reasons import reason_of
from restore_rwkv.evaluation.fidelity.results import (
    FidelityMap,
    Figure,
    RestoredPair,
)
from restore_rwkv.evaluation.measures.measure import NoScoreError
from restore_rwkv.tasks.modality import spread_slices

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from restore_rwkv.io import Progress, Volume

_RADIUS = 5.0  # mm; of the smallest lesion that is looked for, where the block resolves it
_LEAST_NOISE = 1e-3  # of the foreground: what rounding and storage leave counts as noise too
_REALISATIONS = 4
_WIDER = 4.0  # of the Gaussian: over which the spread of noise is smoothed


class MRIDetector(Detector):
    """Contradiction with the measured k-space, where a lesion of some size would show it.

    The score is `G*(y - |P x|) / rms(G*n)`: y the scan, x the restored image, n what the noise of y
    (`physics.mri.noise_level`, an upper bound, so that scores are rather too small) changes in a
    scan of x, in air also its mean, and G a Gaussian with the standard deviation of a disc of
    `radius_mm` in pixels of the block, `sqrt(radius^2 / 4 + block pixel^2 / 12)`, within slices.

    Attributes:
        radius_mm: 5 mm, or the side of a pixel of the block where it is larger.
        simulated_threshold: absolute score that noise exceeds in 5 % of scans.
        noise: of the scan per channel, in its unit.
    """

    def __init__(self, pair: RestoredPair, progress: Progress | None = None) -> None:
        """Prepare the detector: measure the noise of the scan and simulate it.

        Raises:
            NoScoreError: the pair has no geometry, or the noise cannot be measured.
        """
        import torch

        from restore_rwkv.physics.mri import CartesianMRI, noise_level

        spacing = pair.after.spacing
        if spacing is None:
            raise NoScoreError("the scan has no geometry, so the size of a lesion is not known")
        self._shape = pair.after.slices(pair.axis).shape
        self._factor, self._magnitude = block_factor(pair), not pair.signed
        pixel = [side for axis, side in enumerate(spacing) if axis != pair.axis]
        size = (self._shape[1], self._shape[2])
        try:
            kept = CartesianMRI(size, self._factor).kept
            slices = torch.from_numpy(spread_slices(pair.before, pair.axis))
            slices = slices.clamp(min=0) if self._magnitude else slices
            noise = noise_level(slices, self._factor, magnitude=self._magnitude)
        except OperatorError as error:
            raise NoScoreError(f"the noise of the scan: {reason_of(error)}") from error
        coarse = [side * n / m for side, n, m in zip(pixel, size, kept, strict=True)]
        self.radius_mm = max(_RADIUS, *coarse)
        self._sigma = [
            math.sqrt(self.radius_mm**2 / 4 + wide**2 / 12) / side
            for wide, side in zip(coarse, pixel, strict=True)
        ]
        self.noise = max(noise, _LEAST_NOISE * _level(slices))
        if not self.noise > 0:
            raise NoScoreError("the scan is 0 everywhere")
        self._simulate(pair, progress)

    def _simulate(self, pair: RestoredPair, progress: Progress | None) -> None:
        """Find what noise does to each slice, and the largest score that it has in one."""
        import torch

        from restore_rwkv.physics.mri import scan_noise

        generator = torch.Generator().manual_seed(pair.seed)
        after = pair.after.slices(pair.axis)
        self._spread = np.empty(after.shape, dtype=np.float32)
        maxima: list[float] = []
        for part, image, _ in parts(after, after):
            images = torch.from_numpy(image).expand(_REALISATIONS, *image.shape)
            noise = scan_noise(
                *(images, self.noise, self._factor),
                generator=generator,
                magnitude=self._magnitude,
            )
            drawn = np.stack([self._filtered(each) for each in noise.numpy()])
            powers = np.stack([self._filtered(np.square(each), _WIDER) for each in drawn])
            self._spread[part] = np.sqrt(powers.mean(axis=0))
            # The variance of a scan is not from its own noise; with it, scores are too small.
            others = (powers.sum(axis=0) - powers) / (_REALISATIONS - 1)
            maxima += np.abs(drawn / np.sqrt(others)).max(axis=(2, 3)).ravel().tolist()
            if progress is not None:
                progress(min(part.stop, len(after)), len(after))
        self.simulated_threshold = exceeded_rarely(maxima, len(after))

    def scores(
        self, before: NDArray[np.float32], after: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return scores (N, H, W) of a scan and a restored image of it, both (N, H, W).

        They are above 0 where the scan is brighter than the restored image says it should be.
        """
        scores = np.empty(before.shape, dtype=np.float32)
        for part, low, image in parts(before, after):
            scores[part] = self._filtered(difference(low, image, self._factor, self._magnitude))
        return scores / self._spread

    def map_of(self, values: Volume) -> FidelityMap:
        """Return the map of scores, a volume on the grid of the restored image."""
        found = self.simulated_threshold
        return FidelityMap(
            name="contradicted",
            title="contradiction with the measured k-space",
            volume=values,
            unit="",
            limit=max(5.0, found or 0.0),
            threshold=found,
            signed=True,
            meaning="How many standard deviations of noise the scan is brighter (above 0) or "
            "darker (below 0) than a scan of the restored image would be, in a disc of "
            f"{self.radius_mm:.3g} mm radius.",
            blind_to=f"It cannot see {CANNOT_SEE}.",
        )

    def _filtered(self, images: NDArray[np.float32], wider: float = 1.0) -> NDArray[np.float32]:
        from scipy.ndimage import gaussian_filter

        rows, columns = (wider * sigma for sigma in self._sigma)
        # A field of view wraps around, as the transform does.
        filtered: NDArray[np.float32] = gaussian_filter(images, (0, rows, columns), mode="wrap")
        return filtered


def mri_maps(
    pair: RestoredPair, detector: Detector | None, scores: NDArray[np.float32] | None
) -> list[FidelityMap]:
    """Return the map of what was inferred, `|x - P x|` in the unit of the image."""
    import torch

    from restore_rwkv.physics.mri import measured_part

    after = pair.after.slices(pair.axis)
    inferred = np.empty(after.shape, dtype=np.float32)
    for part, image, _ in parts(after, after):
        tensor = torch.from_numpy(image)
        inferred[part] = (tensor - measured_part(tensor, block_factor(pair))).abs().numpy()
    return [
        FidelityMap(
            name="inferred",
            title="what was inferred, not measured",
            volume=pair.after.with_slices(inferred, pair.axis),
            unit=pair.after.unit or "a.u.",
            limit=float(np.quantile(inferred, 0.999)) or 1.0,
            threshold=None,
            signed=False,
            meaning="How much of the value comes from k-space that was not measured: the network "
            "inferred it from the anatomy that it was trained with.",
            blind_to="It says how much was inferred, not whether that is right.",
        )
    ]


def mri_figures(
    pair: RestoredPair, detector: Detector | None, scores: NDArray[np.float32] | None
) -> list[Figure]:
    """Return the figures of a restored MRI scan.

    They are the disagreement R, whether the block is that of the scan, the share of the energy
    that was inferred, and the share of negative values.
    """
    return agreement(pair)


def _level(images: torch.Tensor) -> float:
    """Mean of what lies above the mean."""
    import torch

    images = images.abs()
    # At most the largest value: the mean of equal values can be rounded beyond them.
    return float(images[images >= torch.minimum(images.mean(), images.max())].mean())
