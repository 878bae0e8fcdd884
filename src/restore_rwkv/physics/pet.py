"""Simulated PET at full and low dose: projection, counting, thinning, reconstruction.

Each slice is projected by itself (2-D PET). With P the parallel projector, B the point spread of
the detectors as a Gaussian blur and a = exp(-P mu) the attenuation factors, the scanner expects

    trues = scale * A x,   A x = a P B x,   prompts ~ Poisson(trues + background),

where the background stands for scatter and randoms. A lower dose is a list mode of which each event
is kept with that probability, so `low ~ Binomial(prompts, dose)`. Full and low counts are
reconstructed alike with OSEM (Hudson & Larkin, IEEE TMI 13:601, 1994) and a Gaussian filter.
Neighbouring slices meet in two places: the point spread and the filter have an axial part.

Slices are transaxial, as a ring measures them; for coronal slices simulate the axial stack, and
reslice the reconstructions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.projection import ParallelBeam, Projector

_SIGMA = 1 / math.sqrt(8 * math.log(2))  # of a Gaussian, over its full width at half maximum
_SLICES = 32  # projected at once: what keeps a CPU core quick, and memory small
_ALL = slice(None)


@dataclass(frozen=True)
class PETScanner:
    """Geometry, counts and reconstruction of a scan.

    Attributes:
        size: rows and columns of a slice.
        pixel: side of a pixel in mm.
        slice_spacing: distance of neighbouring slices in mm; 0 for slices that are no stack, which
            are neither blurred nor filtered across.
        views: angles over 180 degrees.
        point_spread: FWHM of the detectors' blur in mm; 0 for none.
        counts: expected prompts at full dose of a mean slice, over the slices with activity.
        background: expected scatter and randoms over trues.
        background_width: FWHM in mm along the detector of the blur that makes trues a background.
        iterations: passes of OSEM over all views.
        subsets: subsets of views in OSEM, at most `views`.
        model_point_spread: whether the reconstruction knows the blur in the slice.
        post_filter: FWHM in mm of the Gaussian after OSEM; 0 for none.

    Raises:
        OperatorError: a value is out of range.
    """

    size: int = 128
    pixel: float = 2.0
    slice_spacing: float = 2.0
    views: int = 192
    point_spread: float = 5.0
    counts: float = 6e5
    background: float = 0.3
    background_width: float = 100.0
    iterations: int = 3
    subsets: int = 16
    model_point_spread: bool = False
    post_filter: float = 3.0

    def __post_init__(self) -> None:
        above_zero = ("size", "pixel", "views", "counts", "iterations", "subsets")
        for field in fields(self):
            value = getattr(self, field.name)
            kind = "whole" if field.type == "int" else "finite"
            least = "above" if field.name in above_zero else "at least"
            wrong = kind == "whole" and not isinstance(value, int)
            if wrong or not 0 <= value < math.inf or (value == 0 and least == "above"):
                raise OperatorError(
                    f"PET scanner: {field.name} is {value}; give a {kind} number {least} 0"
                )
        if self.subsets > self.views:
            raise OperatorError(
                f"PET scanner: {self.subsets} subsets of {self.views} views; give at most one "
                "subset a view"
            )


class PETSystem:
    """System model A of a scanner for a stack of slices, `A x = exp(-P mu) * P B x`.

    Here B acts in the slice; `acquire` blurs across slices before.

    Attributes:
        scanner: geometry and reconstruction.
        attenuation: (N, V, D) factors in (0, 1], or None for no attenuation.
    """

    def __init__(self, scanner: PETScanner, mu: Tensor | None = None):
        """Builds the model.

        Args:
            scanner: geometry.
            mu: (N, size, size) linear attenuation at 511 keV in 1/mm, at least 0, or None.

        Raises:
            OperatorError: `mu` has another shape or type, or a negative or infinite value.
        """
        self.scanner = scanner
        self.projector = Projector(ParallelBeam(scanner.size, scanner.pixel, scanner.views))
        if mu is not None:
            _check_stack("mu", mu)
        self.attenuation = None if mu is None else torch.exp(-self.projector.A(mu))

    def A(self, image: Tensor, views: slice = _ALL) -> Tensor:  # noqa: N802
        """Attenuated line integrals: (N, size, size) -> (N, V, D), unit of the image x mm."""
        rays = self.projector.A(self._blur(image), views)
        return rays if self.attenuation is None else rays * self.attenuation[:, views]

    def A_adjoint(self, sinogram: Tensor, views: slice = _ALL) -> Tensor:  # noqa: N802
        """Exact adjoint of `A`: (N, V, D) -> (N, size, size), unit of the sinogram x mm."""
        if self.attenuation is not None:
            sinogram = sinogram * self.attenuation[:, views]
        return self._blur(self.projector.A_adjoint(sinogram, views))

    def part(self, slices: slice) -> PETSystem:
        """Model of some slices of the stack."""
        return self._with(self.scanner, slices)

    def for_reconstruction(self) -> PETSystem:
        """The model that OSEM inverts: without the blur unless the scanner models it."""
        known = self.scanner.point_spread if self.scanner.model_point_spread else 0.0
        return self._with(replace(self.scanner, point_spread=known), _ALL)

    def _blur(self, image: Tensor) -> Tensor:
        return _blurred(image, self.scanner.point_spread, self.scanner.pixel)

    def _with(self, scanner: PETScanner, slices: slice) -> PETSystem:
        system = PETSystem(scanner)
        system.attenuation = None if self.attenuation is None else self.attenuation[slices]
        return system


@dataclass(frozen=True, eq=False)
class Acquisition:
    """Counts of a scan and what reconstruction has to know of them.

    Attributes:
        prompts: (N, V, D) counted events.
        background: (N, V, D) expected events that are scatter or randoms.
        scale: expected events per unit of `A x`.
    """

    prompts: Tensor
    background: Tensor
    scale: float

    def part(self, slices: slice) -> Acquisition:
        """Scan of some slices of the stack."""
        return Acquisition(self.prompts[slices], self.background[slices], self.scale)

    def thinned(self, dose: float, seeds: Sequence[int]) -> Acquisition:
        """Scan at a fraction of the dose: each event is kept with probability `dose`.

        Args:
            dose: in (0, 1]; 1 keeps every event.
            seeds: one a slice.

        Raises:
            OperatorError: the dose is out of range.
        """
        _check_dose(dose)
        chance = torch.full_like(self.prompts[0], dose)
        kept = [
            torch.binomial(prompts, chance, generator=_generator(seed, prompts.device))
            for prompts, seed in zip(self.prompts, seeds, strict=True)
        ]
        return Acquisition(torch.stack(kept), self.background * dose, self.scale * dose)


def acquire(
    activity: Tensor, system: PETSystem, seeds: Sequence[int], dose: float = 1.0
) -> Acquisition:
    """Counts of a scan, `Poisson(dose * (trues + background))`.

    Args:
        activity: (N, size, size) in any unit, at least 0.
        system: model of the scanner with the attenuation of these slices.
        seeds: one a slice; a slice's counts depend on its own seed alone.
        dose: multiplies the scanner's counts; above 0.

    Returns:
        Prompts, their expected background, and events per unit of activity.

    Raises:
        OperatorError: wrong shape or type, or negative or infinite activity, or none at all.
    """
    _check_stack("activity", activity)
    scanner = system.scanner
    seen = _blurred_across(activity, scanner.point_spread, scanner.slice_spacing)
    trues = torch.cat([system.part(s).A(seen[s]) for s in _parts(len(seen), _SLICES)])
    filled = int((trues.amax(dim=(1, 2)) > 0).sum())
    if filled == 0:
        raise OperatorError("activity is 0 everywhere; give a stack with some activity")
    scale = dose * scanner.counts * filled / float(trues.sum(dtype=torch.float64))
    scale /= 1 + scanner.background
    trues = trues * scale
    width = scanner.background_width / scanner.pixel
    background = scanner.background * trues @ _gaussian(trues.shape[2], width, trues)
    rates = trues + background
    prompts = [
        torch.poisson(rate, generator=_generator(seed, rate.device))
        for rate, seed in zip(rates, seeds, strict=True)
    ]
    return Acquisition(torch.stack(prompts), background, scale)


def osem(scan: Acquisition, system: PETSystem) -> Tensor:
    """Ordered-subsets expectation maximisation from a uniform image, without a filter.

    For each subset S of views, with y the prompts and b their background (Hudson & Larkin 1994),
    `x <- x / (A_S^T s) * A_S^T (s y / (s A_S x + b))`, s = `scale`. A subset is every K-th view;
    the order follows the golden ratio, so that successive subsets lie far apart.

    Args:
        scan: counts of the system's slices.
        system: what is inverted; see `PETSystem.for_reconstruction`.

    Returns:
        (N, size, size) in the unit of the activity, at least 0.
    """
    scanner = system.scanner
    subsets = [slice(k, scanner.views, scanner.subsets) for k in range(scanner.subsets)]
    ones = torch.ones_like(scan.prompts[:, :1, :1]) * scan.scale
    sensitivity = [
        system.A_adjoint(ones.expand_as(scan.prompts[:, views]), views).clamp_min(1e-30)
        for views in subsets
    ]
    order = sorted(range(scanner.subsets), key=lambda k: k * 0.6180339887 % 1)
    level = scan.prompts.sum(dim=(1, 2)) / torch.stack(sensitivity).sum(dim=(0, 2, 3))
    image = level[:, None, None].expand_as(sensitivity[0])
    for _ in range(scanner.iterations):
        for k in order:
            views = subsets[k]
            expected = scan.scale * system.A(image, views) + scan.background[:, views]
            # Where nothing is expected and nothing came, the ratio is 0 and not 0 / 0.
            ratio = scan.scale * scan.prompts[:, views] / expected.clamp_min(1e-9)
            image = image * system.A_adjoint(ratio, views) / sensitivity[k]
    return image


def reconstruct(scan: Acquisition, system: PETSystem, slices_at_once: int = _SLICES) -> Tensor:
    """Image of a scan: OSEM as the scanner has it, then the Gaussian post filter.

    Args:
        scan: counts of all slices.
        system: the model that they were acquired with.
        slices_at_once: bounds memory; the result does not depend on it.

    Returns:
        (N, size, size) in the unit of the activity, at least 0.
    """
    scanner = system.scanner
    inverted = system.for_reconstruction()
    parts = _parts(len(scan.prompts), slices_at_once)
    stack = torch.cat([osem(scan.part(s), inverted.part(s)) for s in parts])
    stack = _blurred(stack, scanner.post_filter, scanner.pixel)
    return _blurred_across(stack, scanner.post_filter, scanner.slice_spacing)


def simulate_pair(
    activity: Tensor,
    mu: Tensor | None = None,
    dose: float = 1 / 12,
    scanner: PETScanner | None = None,
    *,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Simulated PET at full dose and, from the same events thinned, at a fraction of it.

    Args:
        activity: (N, H, W) transaxial slices, SUV or another unit, at least 0; H and W at most the
            scanner's size (smaller slices lie in the centre of its field of view).
        mu: (N, H, W) linear attenuation at 511 keV in 1/mm, or None for none.
        dose: fraction of events kept, in (0, 1].
        scanner: None for `PETScanner()`.
        generator: on the CPU; one number per slice and step is drawn from it, so that the counts of
            a slice do not depend on how many are computed at once.

    Returns:
        Full-dose and low-dose images (N, H, W) in the unit of the activity, at least 0.

    Raises:
        OperatorError: negative or infinite values, shapes that differ or do not fit, wrong dose.

    Example:
        >>> import torch
        >>> from restore_rwkv.physics.pet import PETScanner, simulate_pair
        >>> disc = torch.hypot(*torch.meshgrid(*2 * [torch.arange(-31.5, 32)], indexing="ij")) < 24
        >>> small = PETScanner(size=64, views=96)
        >>> generator = torch.Generator().manual_seed(0)
        >>> full, low = simulate_pair(disc[None].float(), scanner=small, generator=generator)
        >>> full[0, 24:40, 24:40].std() < low[0, 24:40, 24:40].std()
        tensor(True)
    """
    scanner = scanner or PETScanner()
    _check_dose(dose)
    in_view, system = _set_up(activity, mu, scanner)
    seeds = torch.randint(2**62, (2, len(activity)), generator=generator).tolist()
    full = acquire(in_view, system, seeds[0])
    low = full.thinned(dose, seeds[1])
    height, width = activity.shape[1:]
    first, second = (_cropped(reconstruct(scan, system), height, width) for scan in (full, low))
    return first, second


def low_dose(
    image: Tensor,
    mu: Tensor | None = None,
    dose: float = 1 / 12,
    scanner: PETScanner | None = None,
    *,
    generator: torch.Generator,
) -> Tensor:
    """Simulated low-dose image of a real PET image, taken for the activity.

    The image is blurred and noisy already. So no point spread is applied, and the counts are those
    at `dose / (1 - dose)` of the full dose: the variance 1/dose - 1 that they add to the image's
    own of 1 makes up that of the low dose.

    Args:
        image: (N, H, W) transaxial slices at full dose, any unit, at least 0.
        mu: as in `simulate_pair`.
        dose: in (0, 1).
        scanner: whose `counts` are those of the image; None for `PETScanner()`.
        generator: as in `simulate_pair`.

    Returns:
        (N, H, W) in the unit of the image, at least 0; the scanner's post filter is applied once
        more.

    Raises:
        OperatorError: as `simulate_pair`, or a dose of 1.
    """
    scanner = replace(scanner or PETScanner(), point_spread=0.0)
    _check_dose(dose)
    if dose == 1:
        raise OperatorError("dose is 1, the image's own; give a dose below 1")
    in_view, system = _set_up(image, mu, scanner)
    seeds = torch.randint(2**62, (len(image),), generator=generator).tolist()
    scan = acquire(in_view, system, seeds, dose / (1 - dose))
    return _cropped(reconstruct(scan, system), image.shape[1], image.shape[2])


def _gaussian(size: int, fwhm: float, like: Tensor) -> Tensor:
    """Symmetric matrix of a Gaussian blur, fwhm in samples, mirrored at both ends.

    Its rows and columns sum to 1: it is its own adjoint and keeps the total.
    """
    sigma = max(fwhm * _SIGMA, 1e-6)  # at 0 the weight of the centre alone is left
    reach = math.ceil(4 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=like.device)
    weights = torch.exp(-0.5 * (offsets / sigma).double().square())
    target = (torch.arange(size, device=like.device)[:, None] + offsets) % (2 * size)
    target = torch.where(target < size, target, 2 * size - 1 - target)
    matrix = torch.zeros(size, size, dtype=torch.float64, device=like.device)
    matrix.scatter_add_(1, target, (weights / weights.sum()).expand(size, -1))
    return matrix.to(like.dtype)


def _blurred(stack: Tensor, fwhm: float, pixel: float) -> Tensor:
    """Gaussian blur in the slices, fwhm in mm."""
    if fwhm == 0:
        return stack
    rows, columns = (_gaussian(n, fwhm / pixel, stack) for n in stack.shape[1:])
    return rows @ stack @ columns


def _blurred_across(stack: Tensor, fwhm: float, spacing: float) -> Tensor:
    """Gaussian blur from slice to slice, fwhm in mm; none between slices that are no stack."""
    if fwhm == 0 or spacing == 0:
        return stack
    mixed: Tensor = torch.tensordot(_gaussian(len(stack), fwhm / spacing, stack), stack, dims=1)
    return mixed


def _generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def _parts(count: int, step: int) -> list[slice]:
    return [slice(first, first + step) for first in range(0, count, step)]


def _padded(stack: Tensor, size: int) -> Tensor:
    rows, columns = size - stack.shape[1], size - stack.shape[2]
    return F.pad(stack, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def _cropped(stack: Tensor, height: int, width: int) -> Tensor:
    top, left = (stack.shape[1] - height) // 2, (stack.shape[2] - width) // 2
    return stack[:, top : top + height, left : left + width]


def _check_dose(dose: float) -> None:
    if not 0 < dose <= 1:
        raise OperatorError(f"dose is {dose:g} of the full one; give a fraction above 0, at most 1")


def _set_up(activity: Tensor, mu: Tensor | None, scanner: PETScanner) -> tuple[Tensor, PETSystem]:
    """Activity in the field of view, and the system with its attenuation."""
    _check_stack("activity", activity)
    if mu is not None and mu.shape != activity.shape:
        raise OperatorError(
            f"mu has shape {tuple(mu.shape)}, the activity {tuple(activity.shape)}; "
            "give both on one grid"
        )
    if max(activity.shape[1:]) > scanner.size:
        raise OperatorError(
            f"activity has slices of {activity.shape[1]} x {activity.shape[2]}, the scanner's are "
            f"{scanner.size} x {scanner.size}; set the scanner's size, and pixel to the spacing"
        )
    system = PETSystem(scanner, None if mu is None else _padded(mu, scanner.size))
    return _padded(activity, scanner.size), system


def _check_stack(name: str, stack: Tensor) -> None:
    if stack.ndim != 3 or 0 in stack.shape or stack.dtype not in (torch.float32, torch.float64):
        raise OperatorError(
            f"{name} has shape {tuple(stack.shape)} and type {stack.dtype}; give (N, H, W), "
            "float32 or float64"
        )
    low, high = float(stack.min()), float(stack.max())
    if not (low >= 0 and math.isfinite(high)):
        raise OperatorError(
            f"{name} ranges from {low:g} to {high:g}; give finite values of at least 0"
        )
