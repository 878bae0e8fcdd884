"""Noise of a PET scan: the counts that its level implies, and realisations of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.pet.dose import in_view
from restore_rwkv.physics.pet.noise import noise_level
from restore_rwkv.physics.pet.osem import reconstruct
from restore_rwkv.physics.pet.scanner import PETScanner, acquire
from restore_rwkv.physics.slices import cropped, gaussian_matrix

_CLOSE = 0.15  # relative difference of noise below which counts are scaled once more, and kept
_TRIALS = 4
_COUNTS = (100.0, 1e9)  # per slice, beyond which noise no longer follows them


def axial_gain(scanner: PETScanner) -> float:
    """Standard deviation of noise under the axial post filter, over that without.

    The noise of neighbouring slices is independent before the filter with weights w, so it is
    `sqrt(sum w^2)`; 1 for slices that do not form a stack.
    """
    if not scanner.slice_spacing or not scanner.post_filter:
        return 1.0
    width = scanner.post_filter / scanner.slice_spacing
    size = 2 * math.ceil(4 * width) + 1
    weights = gaussian_matrix(size, width, torch.zeros(1, dtype=torch.float64))[size // 2]
    return float(weights.square().sum().sqrt())


def scan_noise(
    activity: Tensor,
    *,
    scanner: PETScanner,
    mu: Tensor | None = None,
    realisations: int,
    generator: torch.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw the noise of slices, each on its own, without the axial post filter.

    The activity is an image, which is already blurred, so no point spread is applied. Of K
    realisations f_k of the reconstruction, noise is `sqrt(K / (K - 1)) (f_k - mean f)`: it has the
    variance of the noise, and a sum of 0.

    Args:
        activity: (N, H, W) transaxial slices in any unit, such as a restored scan, at least 0.
        scanner: model of the scanner, with the counts per slice; its spacing is not used.
        mu: (N, H, W) linear attenuation at 511 keV in 1/mm; None for none.
        realisations: K, at least 2.
        generator: source of randomness, on the CPU.
        progress: called with (realisations done, all).

    Returns:
        (K, N, H, W) in the unit of the activity.

    Raises:
        OperatorError: as `acquire`, or fewer than 2 realisations.
    """
    if realisations < 2:
        raise OperatorError(f"realisations is {realisations}; give at least 2")
    drawn = []
    for done in range(realisations):
        drawn.append(_image(activity, mu, scanner, generator))
        if progress is not None:
            progress(done + 1, realisations)
    images = torch.stack(drawn)
    return (images - images.mean(dim=0)) * math.sqrt(realisations / (realisations - 1))


def calibrated(
    scanner: PETScanner,
    scan: Tensor,
    activity: Tensor,
    *,
    mu: Tensor | None = None,
    generator: torch.Generator,
) -> PETScanner:
    """Fit the counts of a scanner to the noise of a scan.

    Slices of the activity are simulated, and the counts scaled by the square of the noise of the
    simulation (`noise_level`, times `axial_gain`) over that of the scan, until both are within
    15 %, and once more by what is left. So only the level of the noise relative to its
    values counts, and the unit does not matter. The counts include all that the scanner does to its
    noise: sensitivity, time, filters and resolution models.

    Args:
        scanner: starting point; its `counts` change.
        scan: (N, H, W) transaxial slices with the noise, any unit.
        activity: (N, H, W) of the same slices, as little noise as possible, at least 0.
        mu: (N, H, W) linear attenuation at 511 keV in 1/mm; None for none.
        generator: source of randomness, on the CPU.

    Raises:
        OperatorError: as `noise_level` and `acquire`, the scan has no noise, or one that no number
            of counts between 100 and 1e9 per slice explains.
    """
    wanted = noise_level(scan)
    if not wanted > 0:
        raise OperatorError("scan has no noise; give a scan that was not smoothed")
    gain = axial_gain(scanner)
    for _ in range(_TRIALS):
        found = gain * noise_level(_image(activity, mu, scanner, generator))
        counts = scanner.counts * (found / wanted) ** 2
        if not _COUNTS[0] <= counts <= _COUNTS[1]:
            raise OperatorError(
                f"scan has noise of {100 * wanted:.2g} % of its values, which {counts:.2g} counts "
                "a slice would have; give a scan with other noise"
            )
        scanner = replace(scanner, counts=counts)
        if abs(found / wanted - 1) <= _CLOSE:
            break
    return scanner


def _image(
    activity: Tensor, mu: Tensor | None, scanner: PETScanner, generator: torch.Generator
) -> Tensor:
    """Reconstruct one simulated scan of slices that do not form a stack."""
    placed, system = in_view(activity, mu, replace(scanner, point_spread=0.0, slice_spacing=0.0))
    seeds: Sequence[int] = torch.randint(2**62, (len(activity),), generator=generator).tolist()
    scan = acquire(placed, system, seeds)
    return cropped(reconstruct(scan, system), activity.shape[1], activity.shape[2])
