"""PET images from counts: OSEM (Hudson & Larkin, IEEE TMI 13:601, 1994), then a Gaussian filter."""

from __future__ import annotations

import torch
from torch import Tensor

from restore_rwkv.physics.pet.scanner import SLICES_TOGETHER, Acquisition, PETSystem
from restore_rwkv.physics.slices import batches, blurred, blurred_across


def osem(scan: Acquisition, system: PETSystem) -> Tensor:
    """Ordered-subsets expectation maximisation from a uniform image, without a filter.

    For each subset S of views, with y the prompts and b their background (Hudson & Larkin 1994),
    `x <- x / (A_S^T s) * A_S^T (s y / (s A_S x + b))`, s = `scale`. Of K subsets, each has every
    K-th view; their order follows the golden ratio, so that successive subsets lie far apart.

    Args:
        scan: counts of the system's slices.
        system: model to invert; see `PETSystem.for_reconstruction`.

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
            # Where no events are expected and none were counted, the ratio is 0 and not 0 / 0.
            ratio = scan.scale * scan.prompts[:, views] / expected.clamp_min(1e-9)
            image = image * system.A_adjoint(ratio, views) / sensitivity[k]
    return image


def reconstruct(
    scan: Acquisition, system: PETSystem, slices_at_once: int = SLICES_TOGETHER
) -> Tensor:
    """Reconstruct a scan: OSEM with the scanner's settings, then the Gaussian post filter.

    Args:
        scan: counts of all slices.
        system: the model with which they were acquired.
        slices_at_once: number of slices reconstructed together; limits memory use and does not
            affect the result.

    Returns:
        (N, size, size) in the unit of the activity, at least 0.
    """
    scanner = system.scanner
    inverted = system.for_reconstruction()
    parts = batches(len(scan.prompts), slices_at_once)
    stack = torch.cat([osem(scan.part(s), inverted.part(s)) for s in parts])
    stack = blurred(stack, scanner.post_filter, scanner.pixel)
    return blurred_across(stack, scanner.post_filter, scanner.slice_spacing)
