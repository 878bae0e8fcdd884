"""Stacks of slices, (N, H, W): parts of them, margins, and Gaussian blurs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_SIGMA = 1 / math.sqrt(8 * math.log(2))  # of a Gaussian, over its full width at half maximum


def batches(count: int, step: int) -> list[slice]:
    """Ranges of at most `step` that cover 0 to `count`."""
    return [slice(first, first + step) for first in range(0, count, step)]


def padded(stack: Tensor, size: int) -> Tensor:
    """Slices in the middle of squares of `size`: (N, H, W) -> (N, size, size), 0 outside."""
    rows, columns = size - stack.shape[1], size - stack.shape[2]
    return F.pad(stack, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def cropped(stack: Tensor, height: int, width: int) -> Tensor:
    """Undoes `padded`: the middle (N, height, width)."""
    top, left = (stack.shape[1] - height) // 2, (stack.shape[2] - width) // 2
    return stack[:, top : top + height, left : left + width]


def gaussian_matrix(size: int, fwhm: float, like: Tensor) -> Tensor:
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


def blurred(stack: Tensor, fwhm: float, pixel: float) -> Tensor:
    """Gaussian blur in the slices, fwhm in mm."""
    if fwhm == 0:
        return stack
    rows, columns = (gaussian_matrix(n, fwhm / pixel, stack) for n in stack.shape[1:])
    return rows @ stack @ columns


def blurred_across(stack: Tensor, fwhm: float, spacing: float) -> Tensor:
    """Gaussian blur from slice to slice, fwhm in mm; none between slices that are no stack."""
    if fwhm == 0 or spacing == 0:
        return stack
    mixed: Tensor = torch.tensordot(
        gaussian_matrix(len(stack), fwhm / spacing, stack), stack, dims=1
    )
    return mixed
