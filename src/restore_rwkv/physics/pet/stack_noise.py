"""The noise that an image of PET has at the counts of its own scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from restore_rwkv.physics.pet.noise import noise_level
from restore_rwkv.physics.pet.osem import reconstruct
from restore_rwkv.physics.pet.scanner import PETScanner, PETSystem, check_stack, expect
from restore_rwkv.physics.slices import cropped, padded

_COMPARED = 12  # slices in which the noise of a scan is compared with the simulated one
_SCALES = np.geomspace(1 / 16, 16, 17)  # of the standard deviation of simulated noise


class OwnNoise:
    """The noise of the counts of a scan, reconstructed, for an image that is free of noise.

    The image is used as the activity, without point spread and attenuation. The noise is the
    reconstruction of drawn counts less that of the expected counts: the image is not filtered a
    second time.
    """

    def __init__(self, image: Tensor, scanner: PETScanner):
        """Reconstruct the expected counts.

        Args:
            image: (N, H, W) transaxial slices, any unit, at least 0; H and W at most the scanner's
                size.
            scanner: with the counts of the scan, see `matched_counts`.

        Raises:
            OperatorError: wrong shape or type, or negative, infinite or no activity.
        """
        check_stack("image", image)
        self._system = PETSystem(replace(scanner, point_spread=0.0))
        self._expected = expect(padded(image, scanner.size), self._system)
        self._mean = reconstruct(self._expected, self._system)
        self._shape = image.shape[1], image.shape[2]

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw the noise of a scan: (N, H, W) in the unit of the image, of both signs."""
        seeds = torch.randint(2**62, (len(self._mean),), generator=generator).tolist()
        noisy = reconstruct(self._expected.counted(seeds), self._system)
        return cropped(noisy - self._mean, *self._shape)


def matched_counts(scan: Tensor, image: Tensor, scanner: PETScanner) -> float:
    """Find the counts at which an image would have the noise of a scan.

    Twelve slices around those with most activity are simulated at the counts of the scanner, with
    a fixed seed. Their noise is scaled until the image with it has the `noise_level` of the scan:
    the counts are inversely proportional to its square.

    Args:
        scan: (N, H, W) transaxial slices, at least 0.
        image: the same slices without their noise, in the same unit, at least 0.
        scanner: with counts of the right order.

    Returns:
        Expected prompts per slice for all slices, as `PETScanner.counts`.

    Raises:
        OperatorError: as `OwnNoise` and `noise_level`.
    """
    check_stack("scan", scan)
    check_stack("image", image)
    activity = image.sum(dim=(1, 2), dtype=torch.float64)
    places = torch.arange(len(image), dtype=torch.float64)
    centre = float((activity * places).sum() / activity.sum().clamp(min=1e-30))
    first = max(0, min(round(centre) - _COMPARED // 2, len(image) - _COMPARED))
    part = slice(first, first + _COMPARED)
    level, slab = noise_level(scan[part]), image[part]
    noise = OwnNoise(slab, scanner).draw(torch.Generator().manual_seed(0))
    levels = [noise_level((slab + scale * noise).clamp(min=0)) for scale in _SCALES.tolist()]
    scale = float(np.interp(level, np.maximum.accumulate(levels), _SCALES))
    # The counts of a scanner are those of the mean slice with activity, not of these.
    filled = activity[activity > 0].mean() / activity[part][activity[part] > 0].mean()
    return scanner.counts * float(filled) / scale**2
