"""CT at reduced dose: noise is inserted into a reconstructed scan, whose sharpness is unchanged.

After Yu et al., "Development and validation of a practical lower-dose-simulation tool for
optimizing CT scan protocols", J Comput Assist Tomogr 36 (2012) 477. With line integrals p of the
attenuation `mu = mu_water (1 + HU / 1000)`, a ray counts `c = N e^-p` of the N photons sent. The
logarithm of the count has the variance `v(c) = 1 / c + Ne / c^2`, with Ne the electronic noise. At
the dose fraction a the variance is v(a c), so noise of variance `v(a c) - v(c)` is missing. It is
drawn for each ray, reconstructed by filtered back-projection, and added to the image:

    v(a c) - v(c) = (1 - a) / a * e^p / N * (1 + (1 + a) / a * Ne * e^p / N).

Below a tenth of the dose the logarithm of few counts is biased, which this Gaussian does not
reproduce. There, photons are drawn from a Poisson distribution instead: those of the reduced dose,
and those of the rest of the scan's dose.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.checks import check_floating
from restore_rwkv.physics.ct.projected import ProjectedSlices
from restore_rwkv.physics.ct.scanner import CTScanner
from restore_rwkv.physics.slices import batches

AIR = -1024.0  # lowest HU of a result
COUNTING_BELOW = 0.1  # dose fraction
SLICES_TOGETHER = 8


def reduce_dose(
    hu: Tensor,
    spacing: tuple[float, float],
    *,
    dose: float,
    scanner: CTScanner,
    generator: torch.Generator,
) -> Tensor:
    """Simulate the scan at a fraction of its dose.

    Args:
        hu: (..., H, W), float32 or float64, HU; slices are simulated independently. Values below
            -1000 count as air.
        spacing: distance between rows and between columns in mm; see `dose_noise` where they
            differ.
        dose: fraction of the scan's dose, above 0 and below 1.
        scanner: the scanner; `calibrated` fits it to the noise of a scan.
        generator: source of the noise, on any device. Slices draw from it in order, so a batch gets
            the same noise as a loop over its slices.

    Returns:
        (..., H, W) in HU, same type and device, at least -1024.

    Raises:
        OperatorError: invalid dose, spacing, type or shape.

    Example:
        >>> import torch
        >>> from restore_rwkv.physics.ct import CTScanner, reduce_dose
        >>> scan, generator = torch.zeros(64, 64), torch.Generator().manual_seed(0)
        >>> quarter = reduce_dose(
        ...     scan, (0.7, 0.7), dose=0.25, scanner=CTScanner(), generator=generator
        ... )
        >>> quarter.shape
        torch.Size([64, 64])
    """
    noise = dose_noise(hu, spacing, dose=dose, scanner=scanner, generator=generator)
    return (hu + noise).clamp(min=AIR)


@torch.no_grad()
def dose_noise(
    hu: Tensor,
    spacing: tuple[float, float],
    *,
    dose: float,
    scanner: CTScanner,
    generator: torch.Generator,
) -> Tensor:
    """Draw the noise that `reduce_dose` adds, before any clipping.

    Images that are not square are padded with air. Images whose pixels are not square are
    interpolated to square pixels of at most 0.8 mm (linear), and the noise is interpolated back
    (cubic).

    Arguments and errors are those of `reduce_dose`. Returns (..., H, W) in HU, with mean zero at a
    tenth of the dose and above; no gradient flows through it.
    """
    if not 0 < dose < 1:
        raise OperatorError(f"dose is {dose:g}; give the fraction to keep, above 0 and below 1")
    draw = _counted if dose < COUNTING_BELOW else _gaussian
    return _reconstructed(
        hu, spacing, scanner, lambda counts: draw(counts, dose, scanner, generator)
    )


@torch.no_grad()
def scan_noise(
    hu: Tensor, spacing: tuple[float, float], *, scanner: CTScanner, generator: torch.Generator
) -> Tensor:
    """Draw the noise of a scan at the scanner's own dose, for an object that is free of noise.

    Arguments, result and errors are those of `dose_noise`.
    """
    return _reconstructed(
        hu, spacing, scanner, lambda counts: own_noise(counts, scanner, generator)
    )


def own_noise(counts: Tensor, scanner: CTScanner, generator: torch.Generator) -> Tensor:
    """Gaussian noise of the logarithm of counts, as in a scan at the scanner's own dose."""
    return _variance(counts.clamp(min=1), scanner).sqrt() * _normal(counts, generator)


def check_scan(hu: Tensor, spacing: tuple[float, float]) -> None:
    """Raise an OperatorError unless hu is a finite (..., H, W) and spacing is two distances."""
    check_floating("hu", hu)
    if hu.ndim < 2 or 0 in hu.shape:
        raise OperatorError(f"hu has shape {tuple(hu.shape)}; give (..., H, W), not empty")
    if len(spacing) != 2 or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise OperatorError(
            f"spacing is {tuple(spacing)} mm; give (row, column) distances, finite and above 0"
        )
    if not bool(hu.isfinite().all()):
        raise OperatorError("hu has values that are not finite; set them to -1024 (air)")


def _reconstructed(
    hu: Tensor,
    spacing: tuple[float, float],
    scanner: CTScanner,
    draw: Callable[[Tensor], Tensor],
) -> Tensor:
    """Reconstruct, in HU, the noise that `draw` returns for the counts (V, D) of each slice.

    The counts are those expected at full dose.
    """
    check_scan(hu, spacing)
    slices = hu.reshape(-1, *hu.shape[-2:])
    images = torch.empty_like(slices)
    for part in batches(len(slices), SLICES_TOGETHER):
        projected = ProjectedSlices(slices[part], spacing, scanner)
        images[part] = projected.noise(
            [scanner], lambda counts, _scanner: torch.stack([draw(one) for one in counts])
        )[0]
    return images.reshape(hu.shape)


def _gaussian(
    counts: Tensor, dose: float, scanner: CTScanner, generator: torch.Generator
) -> Tensor:
    """Gaussian noise of the logarithm, with the missing variance."""
    # A ray expected to count less than one photon at the reduced dose is treated as counting one.
    counts = counts.clamp(min=1 / dose)
    variance = _variance(dose * counts, scanner) - _variance(counts, scanner)
    return variance.sqrt() * _normal(counts, generator)


def _counted(counts: Tensor, dose: float, scanner: CTScanner, generator: torch.Generator) -> Tensor:
    """Poisson noise of the logarithm; drawn in float64, since counts may exceed 2^24."""
    expected = counts.to(generator.device, torch.float64)
    kept = torch.poisson(dose * expected, generator)
    full = kept + torch.poisson((1 - dose) * expected, generator)
    # The scan already contains the electronic noise of its own dose: Ne a^2 in units of `kept`.
    missing = math.sqrt(scanner.electronic * (1 - dose**2))
    measured = kept + missing * _normal(expected, generator)
    return (full.clamp(min=1 / dose) * dose / measured.clamp(min=1)).log().to(counts)


def _variance(counts: Tensor, scanner: CTScanner) -> Tensor:
    """Variance of the logarithm of a ray's count, `v(c)`."""
    return (1 + scanner.electronic / counts) / counts


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    device = generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(like)
