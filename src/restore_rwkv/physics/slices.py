"""Operations on stacks of slices, (N, H, W): batches, padding, cropping and Gaussian blurs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_SIGMA = 1 / math.sqrt(8 * math.log(2))  # sigma of a Gaussian over its full width at half maximum


def batches(count: int, step: int) -> list[slice]:
    """Slices of at most `step` indices that cover 0 to `count`."""
    return [slice(first, first + step) for first in range(0, count, step)]


def padded(stack: Tensor, size: int) -> Tensor:
    """Centre slices in squares of `size`, padded with 0: (N, H, W) -> (N, size, size)."""
    rows, columns = size - stack.shape[1], size - stack.shape[2]
    return F.pad(stack, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def cropped(stack: Tensor, height: int, width: int) -> Tensor:
    """Undo `padded`: return the central (N, height, width)."""
    top, left = (stack.shape[1] - height) // 2, (stack.shape[2] - width) // 2
    return stack[:, top : top + height, left : left + width]


def gaussian_matrix(size: int, fwhm: float, like: Tensor) -> Tensor:
    """Symmetric matrix of a Gaussian blur, fwhm in samples, mirrored at both ends.

    Its rows and columns sum to 1: it is its own adjoint and preserves the total.
    """
    sigma = max(fwhm * _SIGMA, 1e-6)  # for a width of 0, only the centre has weight
    reach = math.ceil(4 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=like.device)
    weights = torch.exp(-0.5 * (offsets / sigma).double().square())
    target = (torch.arange(size, device=like.device)[:, None] + offsets) % (2 * size)
    target = torch.where(target < size, target, 2 * size - 1 - target)
    matrix = torch.zeros(size, size, dtype=torch.float64, device=like.device)
    matrix.scatter_add_(1, target, (weights / weights.sum()).expand(size, -1))
    return matrix.to(like.dtype)


def blurred(stack: Tensor, fwhm: float, pixel: float) -> Tensor:
    """Blur within slices by a Gaussian, fwhm and pixel in mm."""
    if fwhm == 0:
        return stack
    rows, columns = (gaussian_matrix(n, fwhm / pixel, stack) for n in stack.shape[1:])
    return rows @ stack @ columns


def blurred_across(stack: Tensor, fwhm: float, spacing: float) -> Tensor:
    """Blur across slices by a Gaussian, fwhm and spacing in mm.

    A spacing of 0 means that the slices do not form a stack: they are returned unchanged.
    """
    if fwhm == 0 or spacing == 0:
        return stack
    mixed: Tensor = torch.tensordot(
        gaussian_matrix(len(stack), fwhm / spacing, stack), stack, dims=1
    )
    return mixed
