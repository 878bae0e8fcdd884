"""Simulated PET at full and low dose: projection, counting, thinning, reconstruction.

Module `scanner` has the model of the scanner and its counts; module `osem` has the reconstruction,
which is the same for full and low counts. Neighbouring slices affect each other in two places: the
point spread and the post filter both have an axial part.

Slices are transaxial, as a ring measures them. For coronal slices, simulate the axial stack and
reslice the reconstructions.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.pet.osem import reconstruct
from restore_rwkv.physics.pet.scanner import PETScanner, PETSystem, acquire, check_dose, check_stack
from restore_rwkv.physics.slices import cropped, padded


def simulate_pair(
    activity: Tensor,
    mu: Tensor | None = None,
    *,
    dose: float = 1 / 12,
    scanner: PETScanner | None = None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Simulate PET at full dose and, by thinning the same events, at a fraction of it.

    Args:
        activity: (N, H, W) transaxial slices, SUV or another unit, at least 0; H and W at most the
            scanner's size (smaller slices lie in the centre of its field of view).
        mu: (N, H, W) linear attenuation at 511 keV in 1/mm, or None for no attenuation.
        dose: fraction of events kept, in (0, 1].
        scanner: model of the scanner; None for `PETScanner()`.
        generator: source of randomness, on the CPU; one seed per slice and step is drawn from it,
            so the counts of a slice do not depend on how many slices are computed at once.

    Returns:
        Full-dose and low-dose images (N, H, W) in the unit of the activity, at least 0.

    Raises:
        OperatorError: negative or infinite values, shapes that differ or do not fit, or an invalid
            dose.

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
    check_dose(dose)
    placed, system = in_view(activity, mu, scanner)
    seeds = torch.randint(2**62, (2, len(activity)), generator=generator).tolist()
    full = acquire(placed, system, seeds[0])
    low = full.thinned(dose, seeds[1])
    height, width = activity.shape[1:]
    first, second = (cropped(reconstruct(scan, system), height, width) for scan in (full, low))
    return first, second


def reduce_dose(
    image: Tensor,
    mu: Tensor | None = None,
    *,
    dose: float = 1 / 12,
    scanner: PETScanner | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Simulate a low-dose image from a real PET image, which is used as the activity.

    The image is already blurred and noisy. Therefore no point spread is applied, and the counts are
    simulated at `dose / (1 - dose)` of the full dose: they add the variance 1/dose - 1 to the
    image's own variance of 1, and the sum is that of the low dose.

    Args:
        image: (N, H, W) transaxial slices at full dose, any unit, at least 0.
        mu: as in `simulate_pair`.
        dose: in (0, 1).
        scanner: model of the scanner, with the `counts` of the image; None for `PETScanner()`.
        generator: as in `simulate_pair`.

    Returns:
        (N, H, W) in the unit of the image, at least 0; the scanner's post filter has been applied
        a second time.

    Raises:
        OperatorError: as for `simulate_pair`, or a dose of 1.
    """
    scanner = replace(scanner or PETScanner(), point_spread=0.0)
    check_dose(dose)
    if dose == 1:
        raise OperatorError("dose is 1, the image's own; give a dose below 1")
    placed, system = in_view(image, mu, scanner)
    seeds = torch.randint(2**62, (len(image),), generator=generator).tolist()
    scan = acquire(placed, system, seeds, dose / (1 - dose))
    return cropped(reconstruct(scan, system), image.shape[1], image.shape[2])


def reduce_dose_with_added(
    image: Tensor,
    added: Tensor,
    *,
    dose: float = 1 / 12,
    scanner: PETScanner | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Simulate the low-dose image that `reduce_dose` gives, had there been more or less activity.

    The scan takes as long, and has the same events: sums and parts of Poisson variables are Poisson
    variables again, so that `Poisson(change)` events are added where the expected counts rise, and
    each event is dropped with probability `-change / rate` where they fall. With a generator in the
    same state, the difference from `reduce_dose` holds no noise but that of the change.

    Args:
        image: as for `reduce_dose`, without the change.
        added: (N, H, W) of either sign, in the unit of the image; their sum is at least 0.
        dose: as for `reduce_dose`.
        scanner: as for `reduce_dose`.
        generator: in the state in which `reduce_dose` was given it.

    Returns:
        (N, H, W) in the unit of the image, at least 0.

    Raises:
        OperatorError: as `reduce_dose`, shapes differ, or the sum is negative.
    """
    scanner = replace(scanner or PETScanner(), point_spread=0.0)
    check_dose(dose)
    if dose == 1:
        raise OperatorError("dose is 1, the image's own; give a dose below 1")
    if image.shape != added.shape:
        raise OperatorError(
            f"added has shape {tuple(added.shape)}, the image {tuple(image.shape)}; "
            "give both on one grid"
        )
    check_stack("image and what is added", image + added)
    placed, system = in_view(image, None, scanner)
    seeds, more = (
        torch.randint(2**62, (len(image),), generator=generator).tolist() for _ in range(2)
    )
    scan = acquire(placed, system, seeds, dose / (1 - dose))
    changed = scan.with_change(placed, padded(added, scanner.size), system, more)
    return cropped(reconstruct(changed, system), image.shape[1], image.shape[2])


def in_view(activity: Tensor, mu: Tensor | None, scanner: PETScanner) -> tuple[Tensor, PETSystem]:
    """Place slices in the field of view; return them and the system with their attenuation.

    Raises:
        OperatorError: as `simulate_pair`.
    """
    check_stack("activity", activity)
    if mu is not None and mu.shape != activity.shape:
        raise OperatorError(
            f"mu has shape {tuple(mu.shape)}, the activity {tuple(activity.shape)}; "
            "give both on one grid"
        )
    if max(activity.shape[1:]) > scanner.size:
        raise OperatorError(
            f"activity has slices of {activity.shape[1]} x {activity.shape[2]}, the scanner's are "
            f"{scanner.size} x {scanner.size}; give a scanner with a larger size, and with pixel "
            "set to the spacing of the slices"
        )
    system = PETSystem(scanner, None if mu is None else padded(mu, scanner.size))
    return padded(activity, scanner.size), system
