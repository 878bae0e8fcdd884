"""Model of a PET scanner: system matrix, measured counts, and counts at a lower dose.

Slices are projected independently (2-D PET). With P the parallel projector, B the point spread of
the detectors as a Gaussian blur and a = exp(-P mu) the attenuation factors, the counts are

    trues = scale * A x,   A x = a P B x,   prompts ~ Poisson(trues + background),

where the background represents scatter and randoms. A lower dose keeps each event of the list mode
with probability `dose`, so `low ~ Binomial(prompts, dose)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.rays.geometry import ParallelBeam
from restore_rwkv.physics.rays.projection import Projector
from restore_rwkv.physics.slices import batches, blurred, blurred_across, gaussian_matrix

SLICES_TOGETHER = 32  # slices projected at once: fast on a CPU core, with little memory
_ALL = slice(None)


@dataclass(frozen=True)
class PETScanner:
    """Geometry, counts and reconstruction of a scan.

    Attributes:
        size: rows and columns of a slice.
        pixel: side of a pixel in mm.
        slice_spacing: distance between neighbouring slices in mm; 0 for slices that do not form a
            stack, which are neither blurred nor filtered across.
        views: number of angles over 180 degrees.
        point_spread: FWHM of the detectors' blur in mm; 0 for no blur.
        counts: expected prompts per slice at full dose, averaged over the slices with activity.
        background: ratio of expected scatter and randoms to trues.
        background_width: FWHM in mm, along the detector, of the blur that turns the trues into the
            background.
        iterations: number of OSEM passes over all views.
        subsets: number of subsets of views in OSEM, at most `views`.
        model_point_spread: whether the reconstruction models the blur within the slice.
        post_filter: FWHM in mm of the Gaussian filter after OSEM; 0 for no filter.

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
                "subset per view"
            )


class PETSystem:
    """System model A of a scanner for a stack of slices, `A x = exp(-P mu) * P B x`.

    Here B acts within a slice; `acquire` blurs across slices beforehand.

    Attributes:
        scanner: geometry and reconstruction.
        attenuation: (N, V, D) factors in (0, 1], or None for no attenuation.
    """

    def __init__(self, scanner: PETScanner, mu: Tensor | None = None):
        """Build the model.

        Args:
            scanner: geometry.
            mu: (N, size, size) linear attenuation at 511 keV in 1/mm, at least 0; None for no
                attenuation.

        Raises:
            OperatorError: `mu` has another shape or type, or a negative or infinite value.
        """
        self.scanner = scanner
        self.projector = Projector(ParallelBeam(scanner.size, scanner.pixel, scanner.views))
        if mu is not None:
            check_stack("mu", mu)
        self.attenuation = None if mu is None else torch.exp(-self.projector.A(mu))

    def A(self, image: Tensor, views: slice = _ALL) -> Tensor:  # noqa: N802
        """Attenuated line integrals: (N, size, size) -> (N, V, D), in image units times mm."""
        rays = self.projector.A(self._blur(image), views)
        return rays if self.attenuation is None else rays * self.attenuation[:, views]

    def A_adjoint(self, sinogram: Tensor, views: slice = _ALL) -> Tensor:  # noqa: N802
        """Exact adjoint of `A`: (N, V, D) -> (N, size, size), in sinogram units times mm."""
        if self.attenuation is not None:
            sinogram = sinogram * self.attenuation[:, views]
        return self._blur(self.projector.A_adjoint(sinogram, views))

    def part(self, slices: slice) -> PETSystem:
        """Model of some slices of the stack."""
        return self._with(self.scanner, slices)

    def for_reconstruction(self) -> PETSystem:
        """Model that OSEM inverts: without the blur unless `model_point_spread` is set."""
        known = self.scanner.point_spread if self.scanner.model_point_spread else 0.0
        return self._with(replace(self.scanner, point_spread=known), _ALL)

    def _blur(self, image: Tensor) -> Tensor:
        return blurred(image, self.scanner.point_spread, self.scanner.pixel)

    def _with(self, scanner: PETScanner, slices: slice) -> PETSystem:
        system = PETSystem(scanner)
        system.attenuation = None if self.attenuation is None else self.attenuation[slices]
        return system


@dataclass(frozen=True, eq=False)
class Acquisition:
    """Counts of a scan, with the background and scale that the reconstruction needs.

    Attributes:
        prompts: (N, V, D) counted events, or of `expect` how many are expected.
        background: (N, V, D) expected scatter and randoms.
        scale: expected events per unit of `A x`.
    """

    prompts: Tensor
    background: Tensor
    scale: float

    def part(self, slices: slice) -> Acquisition:
        """Scan of some slices of the stack."""
        return Acquisition(self.prompts[slices], self.background[slices], self.scale)

    def counted(self, seeds: Sequence[int]) -> Acquisition:
        """Scan whose events are drawn where these are the expected ones, one seed per slice."""
        prompts = [
            torch.poisson(rate, generator=_generator(seed, rate.device))
            for rate, seed in zip(self.prompts, seeds, strict=True)
        ]
        return Acquisition(torch.stack(prompts), self.background, self.scale)

    def thinned(self, dose: float, seeds: Sequence[int]) -> Acquisition:
        """Scan at a fraction of the dose: each event is kept with probability `dose`.

        Args:
            dose: in (0, 1]; 1 keeps every event.
            seeds: one per slice.

        Raises:
            OperatorError: the dose is out of range.
        """
        check_dose(dose)
        chance = torch.full_like(self.prompts[0], dose)
        kept = [
            torch.binomial(prompts, chance, generator=_generator(seed, prompts.device))
            for prompts, seed in zip(self.prompts, seeds, strict=True)
        ]
        return Acquisition(torch.stack(kept), self.background * dose, self.scale * dose)

    def with_change(
        self, activity: Tensor, added: Tensor, system: PETSystem, seeds: Sequence[int]
    ) -> Acquisition:
        """Scan of the same events, had there been more or less activity for the same time.

        Args:
            activity: (N, size, size) that this scan is of, without point spread across slices.
            added: (N, size, size) of either sign.
            system: that this scan was acquired by.
            seeds: one per slice.
        """
        parts = list(batches(len(activity), SLICES_TOGETHER))
        trues, change = (
            self.scale * torch.cat([system.part(s).A(image[s]) for s in parts])
            for image in (activity, added)
        )
        background = _background(change, system.scanner)
        change = change + background
        kept = (1 + change.clamp(max=0) / (trues + self.background).clamp_min(1e-30)).clamp(0, 1)
        prompts = []
        for counted, share, more, seed in zip(self.prompts, kept, change, seeds, strict=True):
            generator = _generator(seed, counted.device)
            left = torch.binomial(counted, share, generator=generator)
            prompts.append(left + torch.poisson(more.clamp(min=0), generator=generator))
        return Acquisition(torch.stack(prompts), self.background + background, self.scale)


def acquire(
    activity: Tensor, system: PETSystem, seeds: Sequence[int], dose: float = 1.0
) -> Acquisition:
    """Draw the counts of a scan, `Poisson(dose * (trues + background))`.

    Args:
        activity: (N, size, size) in any unit, at least 0.
        system: model of the scanner with the attenuation of these slices.
        seeds: one per slice; the counts of a slice depend only on its own seed.
        dose: factor on the scanner's counts; above 0.

    Returns:
        Prompts, their expected background, and events per unit of activity.

    Raises:
        OperatorError: wrong shape or type, negative or infinite activity, or no activity at all.
    """
    return expect(activity, system, dose).counted(seeds)


def expect(activity: Tensor, system: PETSystem, dose: float = 1.0) -> Acquisition:
    """Return what a scan counts in the mean; arguments and errors are those of `acquire`."""
    check_stack("activity", activity)
    scanner = system.scanner
    seen = blurred_across(activity, scanner.point_spread, scanner.slice_spacing)
    trues = torch.cat([system.part(s).A(seen[s]) for s in batches(len(seen), SLICES_TOGETHER)])
    filled = int((trues.amax(dim=(1, 2)) > 0).sum())
    if filled == 0:
        raise OperatorError("activity is 0 everywhere; give a stack with some activity")
    scale = dose * scanner.counts * filled / float(trues.sum(dtype=torch.float64))
    scale /= 1 + scanner.background
    trues = trues * scale
    background = _background(trues, scanner)
    return Acquisition(trues + background, background, scale)


def _background(trues: Tensor, scanner: PETScanner) -> Tensor:
    """Expected scatter and randoms (N, V, D) of expected trues."""
    width = scanner.background_width / scanner.pixel
    return scanner.background * trues @ gaussian_matrix(trues.shape[2], width, trues)


def check_dose(dose: float) -> None:
    """Raise an OperatorError unless the dose is in (0, 1]."""
    if not 0 < dose <= 1:
        raise OperatorError(
            f"dose is {dose:g} of the full dose; give a fraction above 0 and at most 1"
        )


def check_stack(name: str, stack: Tensor) -> None:
    """Raise an OperatorError unless the tensor is (N, H, W) with finite values of at least 0."""
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


def _generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
