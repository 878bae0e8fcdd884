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
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.checks import check_floating, check_positive
from restore_rwkv.physics.rays.geometry import FanBeam, Geometry, ParallelBeam
from restore_rwkv.physics.rays.kernel import Kernel
from restore_rwkv.physics.rays.projection import Projector
from restore_rwkv.physics.slices import batches, cropped, padded

AIR = -1024.0  # lowest HU of a result
COUNTING_BELOW = 0.1  # dose fraction
REFERENCE_VIEWS = 1152  # number of views that `CTScanner.photons` refers to
SLICES_TOGETHER = 8
FINE_PIXEL = 0.8  # mm; pixels this small keep the noise through cubic interpolation


@dataclass(frozen=True)
class CTScanner:
    """Parameters of a CT scanner that determine the amount and the texture of the noise.

    The default was chosen for patient L506 of the AAPM Low Dose CT Grand Challenge (13.8 HU between
    quarter and full dose on [-160, 240] HU). In a water and fat pelvis of 310 x 220 mm with hips it
    gives 17.7 HU (docs/physics-ct.md). `calibrated` fits the photons to a scan.

    Attributes:
        photons: photons per ray sent to the middle of the detector at the scan's own dose, for 1152
            views; with another number of views each ray gets photons * 1152 / views.
        electronic: variance of the detector's electronic noise, in squared photons.
        bowtie_radius: radius in mm of the water cylinder; the bowtie filter compensates half of its
            attenuation. None for no bowtie.
        kernel: reconstruction kernel of the noise; its Nyquist frequency is that of rays 0.70 mm
            apart (0.71 / mm). Hann with a cutoff of 1.0 to 1.1 resembles a soft B30.
        beam: "parallel" (faster) or "fan".
        views: number of views over the parallel half turn or the fan's full turn; None for 720 or
            1152, respectively.
        mu_water: attenuation of water per mm; 0.0192 at about 70 keV.
    """

    photons: float = 4.5e5
    electronic: float = 10.0
    bowtie_radius: float | None = 125.0
    kernel: Kernel = field(default_factory=Kernel)
    beam: Literal["parallel", "fan"] = "parallel"
    views: int | None = None
    mu_water: float = 0.0192

    def __post_init__(self) -> None:
        if self.beam not in ("parallel", "fan"):
            raise OperatorError(f"beam is {self.beam!r}; give 'parallel' or 'fan'")
        for name in ("photons", "mu_water", "bowtie_radius"):
            value = getattr(self, name)
            if value is not None:
                check_positive(name, value)
        if not (math.isfinite(self.electronic) and self.electronic >= 0):
            raise OperatorError(
                f"electronic is {self.electronic:g}; give a finite number of at least 0"
            )
        if self.views is not None and self.views < 1:
            raise OperatorError(f"views is {self.views}; give at least 1, or None for the default")

    def geometry(self, size: int, pixel: float) -> Geometry:
        """Rays through a square image of `size` x `size` pixels of `pixel` mm."""
        if self.beam == "fan":
            return FanBeam(size, pixel, self.views or FanBeam.views)
        pitch = FanBeam.pitch * FanBeam.source_to_centre / FanBeam.source_to_detector
        return ParallelBeam(size, pixel, self.views or ParallelBeam.views, pitch=pitch)

    def photons_sent(self, geometry: Geometry) -> Tensor:
        """Photons sent along each ray of a view behind the bowtie, (D,), float64."""
        sent = self.photons * REFERENCE_VIEWS / geometry.views
        distance = geometry.ray_distances()
        if self.bowtie_radius is None:
            return torch.full_like(distance, sent)
        radius = self.bowtie_radius
        water = 2 * (radius**2 - distance.square()).clamp(min=0).sqrt()
        return sent * torch.exp(-self.mu_water / 2 * (2 * radius - water))


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
        scanner: the scanner; `calibrated` fits its photons to a scan.
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

    def draw(counts: Tensor) -> Tensor:
        return _variance(counts.clamp(min=1), scanner).sqrt() * _normal(counts, generator)

    return _reconstructed(hu, spacing, scanner, draw)


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
        mu = _to_square(scanner.mu_water * (1 + slices[part] / 1000).clamp(min=0), spacing)
        geometry = scanner.geometry(mu.shape[-1], _pixel(spacing))
        projector = Projector(geometry)
        counts = scanner.photons_sent(geometry).to(hu) * torch.exp(-projector.A(mu))
        drawn = torch.stack([draw(slice_counts) for slice_counts in counts])
        image = projector.fbp(drawn, scanner.kernel) * (1000 / scanner.mu_water)
        images[part] = _from_square(image, spacing, hu.shape[-2:])
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


def _is_square(spacing: tuple[float, float]) -> bool:
    """Return whether pixels are square, up to the rounding of an affine."""
    return math.isclose(*spacing, rel_tol=1e-4)


def _pixel(spacing: tuple[float, float]) -> float:
    """Side of the square pixels used for the simulation, in mm."""
    smaller = min(spacing)
    return smaller if _is_square(spacing) else smaller / math.ceil(smaller / FINE_PIXEL)


def _matrix(shape: torch.Size, spacing: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of the scan on the pixels of `_pixel`."""
    if _is_square(spacing):
        return shape[0], shape[1]
    pixel = _pixel(spacing)
    return round(shape[0] * spacing[0] / pixel), round(shape[1] * spacing[1] / pixel)


def _to_square(image: Tensor, spacing: tuple[float, float]) -> Tensor:
    """Interpolate (N, H, W) to square pixels and pad with 0 to a square grid."""
    height, width = _matrix(image.shape[-2:], spacing)
    if not _is_square(spacing):
        image = _resampled(image, (height, width), "bilinear")
    return padded(image, max(height, width))


def _from_square(image: Tensor, spacing: tuple[float, float], shape: torch.Size) -> Tensor:
    """Undo `_to_square`: return (N, H, W) on the grid of the scan."""
    height, width = _matrix(shape, spacing)
    image = cropped(image, height, width)
    return image if _is_square(spacing) else _resampled(image, tuple(shape), "bicubic")


def _resampled(image: Tensor, shape: tuple[int, ...], mode: str) -> Tensor:
    """Interpolate to another matrix over the same field of view."""
    return F.interpolate(image[:, None], shape, mode=mode, align_corners=False)[:, 0]
