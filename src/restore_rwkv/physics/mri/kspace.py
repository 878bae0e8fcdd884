"""Central block of k-space: its samples, their noise, and the image reconstructed from them.

Transforms use `norm="forward"`: a k-space sample is an amplitude in image units for any matrix
size, so intensities are preserved when the matrix changes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError

Factor = float | tuple[float, ...]

REAL_TYPES = (torch.float32, torch.float64)
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
    kept = _samples_kept((height, width), factor)
    return kept[0], kept[1]


def kspace_block(image: Tensor, factor: Factor = 4) -> Tensor:
    """Samples of the central block of k-space, `M F image`.

    Of an axis with n samples, m = floor(n / factor) are kept: the bins -(m // 2) ... m - m // 2 - 1
    around the zero frequency. The block is symmetric for odd m and not for even m: 64 of 256 keeps
    -32 ... 31, as in the paper's data.

    Args:
        image: (..., H, W), real or complex, float32 or float64 precision; (..., D, H, W) for a 3-D
            acquisition.
        factor: ratio of the full to the measured extent of k-space, at least 1: one number for the
            last two axes, two for (H, W), or three for the (D, H, W) of a 3-D acquisition.

    Returns:
        (..., h, w) or (..., d, h, w), complex, zero frequency at index m // 2 of each axis, in
        units of the image.

    Raises:
        OperatorError: the image is not a floating-point tensor with at least two axes, or `factor`
            is invalid.
    """
    check_image(image, REAL_TYPES + _COMPLEX_TYPES)
    kept = _samples_kept(image.shape, factor)
    samples = image
    # One axis after the other, from the last: each transform runs only on the samples kept so far.
    for axis in range(-1, -1 - len(kept), -1):
        bins = _bins(kept[axis], image.shape[axis], image.device)
        samples = torch.fft.fft(samples, dim=axis, norm="forward").index_select(axis, bins)
    return samples


def kspace_noise(
    shape: tuple[int, ...],
    sigma: float,
    generator: torch.Generator,
    factor: Factor = 4,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw the noise of the measured samples: complex, white, Gaussian.

    The receiver's noise does not depend on how much is measured: the real and the imaginary part of
    each k-space sample have the standard deviation `sigma / sqrt(H W)`. The magnitude image has a
    Rician distribution, in air a Rayleigh distribution (Gudbjartsson and Patz, MRM 34:910, 1995)
    with the mean `sigma sqrt(h w / (H W)) sqrt(pi / 2)`; samples that are not measured add no
    noise.

    Args:
        shape: shape of the image, (..., H, W) or (..., D, H, W).
        sigma: standard deviation per channel (real, imaginary) that an image of the full
            acquisition would have, in units of the image, at least 0.
        generator: the only source of randomness; the result is on its device.
        factor: as for `kspace_block`.
        dtype: torch.float32 or torch.float64, the precision of both channels.

    Returns:
        Complex noise of the shape of the block; the `noise` argument of `kspace_crop` and
        `low_resolution`.

    Raises:
        OperatorError: sigma is below 0 or not finite, or as for `kspace_block`.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise OperatorError(f"sigma is {sigma:g}; give a finite standard deviation of at least 0")
    kept = _samples_kept(shape, factor)
    size = (*shape[: -len(kept)], *kept, 2)
    channels = torch.randn(size, generator=generator, dtype=dtype, device=generator.device)
    return torch.view_as_complex(channels) * (sigma / math.sqrt(math.prod(shape[-len(kept) :])))


def zero_fill(block: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Complex image of a central k-space block on a matrix of the given shape, `F^-1 M^T block`.

    The position of the first sample is the same for every matrix size: sample j of an axis with m
    samples lies at the position of sample j * n / m of an axis with n samples.

    Args:
        block: (..., h, w) or (..., d, h, w), complex, as `kspace_block` returns it.
        shape: (H, W) or (D, H, W) of the image, at least as large as the block.

    Returns:
        (..., H, W) or (..., D, H, W), complex, with the type and units of the block.

    Raises:
        OperatorError: the block is not complex, or larger than `shape`.
    """
    check_image(block, _COMPLEX_TYPES)
    kept = block.shape[-len(shape) :]
    if len(kept) < len(shape) or any(n < m for n, m in zip(shape, kept, strict=True)):
        raise OperatorError(
            f"a k-space block of {matrix_text(kept)} does not fit a matrix of "
            f"{matrix_text(shape)}; give a matrix at least as large"
        )
    image = block
    for axis in range(-len(shape), 0):
        full = list(image.shape)
        full[axis] = shape[axis]
        bins = _bins(kept[axis], shape[axis], block.device)
        image = image.new_zeros(full).index_copy(axis, bins, image)
        image = torch.fft.ifft(image, dim=axis, norm="forward")
    return image


def check_image(image: Tensor, types: tuple[torch.dtype, ...]) -> None:
    """Raise an OperatorError unless the image is a (..., H, W) of one of the types."""
    if image.dtype not in types:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in types)
        name = str(image.dtype).removeprefix("torch.")
        raise OperatorError(f"image has type {name}; convert it to one of {allowed}")
    if image.ndim < 2 or 0 in image.shape[-2:]:
        raise OperatorError(f"image has shape {tuple(image.shape)}; give (..., H, W), not empty")


def matrix_text(shape: tuple[int, ...]) -> str:
    """Format a matrix size for messages, such as "64 x 64"."""
    return " x ".join(str(size) for size in shape)


def _samples_kept(shape: tuple[int, ...], factor: Factor) -> tuple[int, ...]:
    """Number of samples kept along each of the last axes, one for each entry of the factor."""
    factors = factor if isinstance(factor, tuple) else (factor, factor)
    if not 2 <= len(factors) <= min(3, len(shape)):
        raise OperatorError(
            f"factor has {len(factors)} entries; give one number, two for (H, W), or three for the "
            "(D, H, W) of a volume"
        )
    kept = []
    for size, ratio in zip(shape[-len(factors) :], factors, strict=True):
        if not (math.isfinite(ratio) and ratio >= 1):
            raise OperatorError(f"k-space factor is {ratio:g}; give a finite factor of at least 1")
        # The margin prevents a factor computed as size / samples from losing a sample to rounding.
        kept.append(math.floor(size / ratio + 1e-9))
        if kept[-1] < 1:
            raise OperatorError(
                f"k-space factor {ratio:g} leaves no sample of {size}; give a factor of at most "
                f"{size}"
            )
    return tuple(kept)


def _bins(kept: int, size: int, device: torch.device) -> Tensor:
    """Indices, in the FFT order of an axis of `size`, of the `kept` central bins by frequency."""
    return torch.arange(-(kept // 2), kept - kept // 2, device=device) % size
