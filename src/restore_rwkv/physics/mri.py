"""MRI at low resolution: only the centre of k-space is measured.

With F the 2-D Fourier transform and M the choice of a central block of k-space, the image that the
paper calls low quality (section IV-A) is `|F^-1 M F image|` on the unchanged matrix: no window, no
noise, gain 1. Transforms are scaled with `norm="forward"`, where a k-space sample is an amplitude
in image units whatever the matrix size, so that intensities hold when the matrix changes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError

Factor = float | tuple[float, float]

_REAL_TYPES = (torch.float32, torch.float64)
_COMPLEX_TYPES = (torch.complex64, torch.complex128)


def kspace_block_shape(height: int, width: int, factor: Factor = 4) -> tuple[int, int]:
    """Number of k-space samples kept per axis: `(floor(height / f_h), floor(width / f_w))`.

    Args:
        height: rows of the image, at least 1.
        width: columns of the image, at least 1.
        factor: ratio of the full to the measured extent of k-space, at least 1; one number, or one
            for (height, width).

    Raises:
        OperatorError: a factor is below 1, not finite, or larger than the axis it divides.
    """
    factors = factor if isinstance(factor, tuple) else (factor, factor)
    if len(factors) != 2:
        raise OperatorError(f"factor has {len(factors)} entries; give one number or two")
    return _samples_kept(height, factors[0]), _samples_kept(width, factors[1])


def kspace_block(image: Tensor, factor: Factor = 4) -> Tensor:
    """Samples of the central block of k-space, `M F image`.

    Of an axis with n samples, m = floor(n / factor) are kept: the bins -(m // 2) ... m - m // 2 - 1
    about the zero frequency. An even m is thus not symmetric (64 of 256 keeps -32 ... 31, as the
    paper's data do), an odd m is.

    Args:
        image: (..., H, W), real or complex, float32 or float64 precision.
        factor: ratio of the full to the measured extent per axis; see `kspace_block_shape`.

    Returns:
        (..., h, w), complex, zero frequency at [h // 2, w // 2], in units of the image.

    Raises:
        OperatorError: the image is not a floating-point tensor with two axes, or `factor` is wrong.
    """
    _check_image(image, _REAL_TYPES + _COMPLEX_TYPES)
    height, width = image.shape[-2:]
    kept_height, kept_width = kspace_block_shape(height, width, factor)
    # One axis after the other: the second transform runs on the kept columns alone.
    along_width = torch.fft.fft(image, dim=-1, norm="forward")
    along_width = along_width[..., _bins(kept_width, width, image.device)]
    samples = torch.fft.fft(along_width, dim=-2, norm="forward")
    block: Tensor = samples[..., _bins(kept_height, height, image.device), :]
    return block


def zero_fill(block: Tensor, shape: tuple[int, int]) -> Tensor:
    """Complex image of a central k-space block on a matrix of the given shape, `F^-1 M^T block`.

    The first sample of the image stays where the first sample of any other matrix size lies: sample
    j of an axis with m samples is at the place of sample j * n / m of an axis with n.

    Args:
        block: (..., h, w), complex, as `kspace_block` returns it.
        shape: (H, W) of the image, with H >= h and W >= w.

    Returns:
        (..., H, W), complex, same type and units as the block.

    Raises:
        OperatorError: the block is not complex, or larger than `shape`.
    """
    _check_image(block, _COMPLEX_TYPES)
    height, width = shape
    kept_height, kept_width = block.shape[-2:]
    if height < kept_height or width < kept_width:
        raise OperatorError(
            f"a k-space block of {kept_height} x {kept_width} does not fit a matrix of "
            f"{height} x {width}; give a matrix at least as large"
        )
    columns = block.new_zeros((*block.shape[:-2], height, kept_width))
    columns[..., _bins(kept_height, height, block.device), :] = block
    columns = torch.fft.ifft(columns, dim=-2, norm="forward")
    samples = block.new_zeros((*block.shape[:-2], height, width))
    samples[..., _bins(kept_width, width, block.device)] = columns
    image: Tensor = torch.fft.ifft(samples, dim=-1, norm="forward")
    return image


def kspace_crop(image: Tensor, factor: Factor = 4) -> Tensor:
    """Low-resolution image on the unchanged matrix, `|F^-1 M F image|` (zero-filled k-space).

    Never give it an image with its mean taken out: the magnitude would fold the background.

    Args:
        image: (..., H, W), float32 or float64, MR signal in any unit, at least 0.
        factor: ratio of the full to the measured extent of k-space, at least 1, per axis or for
            both; 4 keeps 64 x 64 of 256 x 256 (6.25 %).

    Returns:
        (..., H, W), same type, device and unit, at least 0.

    Raises:
        OperatorError: wrong type, fewer than two axes, or a factor that is below 1 or too large.

    Example:
        >>> import torch
        >>> from restore_rwkv.physics import kspace_crop
        >>> kspace_crop(torch.full((8, 8), 3.0), factor=4).mean()
        tensor(3.)
    """
    _check_image(image, _REAL_TYPES)
    height, width = image.shape[-2:]
    return zero_fill(kspace_block(image, factor), (height, width)).abs()


def low_resolution(image: Tensor, factor: Factor = 4) -> Tensor:
    """Low-resolution image on its native small matrix, as a scanner would store it.

    The same measured block as in `kspace_crop`, with gain 1. Sample j of the small axis lies at the
    place of sample j * H / h of the full one, so an affine of the image becomes that of the result
    by multiplying its in-plane columns by H / h and W / w; its translation stays.

    Args:
        image: (..., H, W), float32 or float64, MR signal in any unit, at least 0.
        factor: see `kspace_crop`.

    Returns:
        (..., floor(H / f_h), floor(W / f_w)), same type, device and unit, at least 0.

    Raises:
        OperatorError: as `kspace_crop`.
    """
    _check_image(image, _REAL_TYPES)
    block = kspace_block(image, factor)
    height, width = block.shape[-2:]
    return zero_fill(block, (height, width)).abs()


def _samples_kept(size: int, factor: float) -> int:
    if not (math.isfinite(factor) and factor >= 1):
        raise OperatorError(f"k-space factor is {factor:g}; give a finite factor of at least 1")
    # The margin keeps a factor written as size / samples from losing a sample to rounding.
    kept = math.floor(size / factor + 1e-9)
    if kept < 1:
        raise OperatorError(
            f"k-space factor {factor:g} leaves no sample of {size}; give a factor of at most {size}"
        )
    return kept


def _bins(kept: int, size: int, device: torch.device) -> Tensor:
    """Places, in FFT order of an axis of `size`, of `kept` bins in rising order of frequency."""
    return torch.arange(-(kept // 2), kept - kept // 2, device=device) % size


def _check_image(image: Tensor, types: tuple[torch.dtype, ...]) -> None:
    if image.dtype not in types:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in types)
        name = str(image.dtype).removeprefix("torch.")
        raise OperatorError(f"image has type {name}; convert it to one of {allowed}")
    if image.ndim < 2 or 0 in image.shape[-2:]:
        raise OperatorError(f"image has shape {tuple(image.shape)}; give (..., H, W), not empty")
