"""MRI at low resolution: only the centre of k-space is measured, or slices are thick.

With F the Fourier transform over the encoded axes and M the choice of a central block of k-space,
the image that the paper calls low quality (section IV-A) is `|F^-1 M F image|` on the unchanged
matrix: no window, no noise, gain 1. Noise on the measured samples, a third encoded axis and thick
slices of 2-D acquisitions can be added. Transforms are scaled with `norm="forward"`, where a
k-space sample is an amplitude in image units whatever the matrix size, so that intensities hold
when the matrix changes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError

Factor = float | tuple[float, ...]

_REAL_TYPES = (torch.float32, torch.float64)
_COMPLEX_TYPES = (torch.complex64, torch.complex128)
_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian with standard deviation 1


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
    about the zero frequency. An even m is thus not symmetric (64 of 256 keeps -32 ... 31, as the
    paper's data do), an odd m is.

    Args:
        image: (..., H, W), real or complex, float32 or float64 precision; (..., D, H, W) for a 3-D
            acquisition.
        factor: ratio of the full to the measured extent of k-space, at least 1: one number for the
            last two axes, two for (H, W), or three for the (D, H, W) of a 3-D acquisition.

    Returns:
        (..., h, w) or (..., d, h, w), complex, zero frequency at index m // 2 of each axis, in
        units of the image.

    Raises:
        OperatorError: the image is not a floating-point tensor with two axes, or `factor` is wrong.
    """
    _check_image(image, _REAL_TYPES + _COMPLEX_TYPES)
    kept = _samples_kept(image.shape, factor)
    samples = image
    # One axis after the other, from the last: each transform runs on what the others keep.
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

    The receiver's noise does not depend on how much is measured: each sample of k-space has the
    standard deviation `sigma / sqrt(H W)` in its real and in its imaginary part. In the magnitude
    image it is Rician, in air a Rayleigh distribution (Gudbjartsson and Patz, MRM 34:910, 1995)
    with the mean `sigma sqrt(h w / (H W)) sqrt(pi / 2)`: what is not measured brings no noise.

    Args:
        shape: of the image, (..., H, W) or (..., D, H, W).
        sigma: standard deviation per channel (real, imaginary) that an image of the full
            acquisition would have, in units of the image, at least 0.
        generator: the only source of randomness; its device is that of the result.
        factor: as for `kspace_block`.
        dtype: torch.float32 or torch.float64, the precision of both channels.

    Returns:
        What `kspace_crop` and `low_resolution` take as `noise`; complex, the shape of the block.

    Raises:
        OperatorError: sigma is below 0 or not finite, or as `kspace_block`.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise OperatorError(f"sigma is {sigma:g}; give a finite standard deviation of at least 0")
    kept = _samples_kept(shape, factor)
    size = (*shape[: -len(kept)], *kept, 2)
    channels = torch.randn(size, generator=generator, dtype=dtype, device=generator.device)
    return torch.view_as_complex(channels) * (sigma / math.sqrt(math.prod(shape[-len(kept) :])))


def zero_fill(block: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Complex image of a central k-space block on a matrix of the given shape, `F^-1 M^T block`.

    The first sample of the image stays where the first sample of any other matrix size lies: sample
    j of an axis with m samples is at the place of sample j * n / m of an axis with n.

    Args:
        block: (..., h, w) or (..., d, h, w), complex, as `kspace_block` returns it.
        shape: (H, W) or (D, H, W) of the image, at least as large as the block.

    Returns:
        (..., H, W) or (..., D, H, W), complex, same type and units as the block.

    Raises:
        OperatorError: the block is not complex, or larger than `shape`.
    """
    _check_image(block, _COMPLEX_TYPES)
    kept = block.shape[-len(shape) :]
    if len(kept) < len(shape) or any(n < m for n, m in zip(shape, kept, strict=True)):
        raise OperatorError(
            f"a k-space block of {_product(kept)} does not fit a matrix of {_product(shape)}; "
            "give a matrix at least as large"
        )
    image = block
    for axis in range(-len(shape), 0):
        full = list(image.shape)
        full[axis] = shape[axis]
        bins = _bins(kept[axis], shape[axis], block.device)
        image = image.new_zeros(full).index_copy(axis, bins, image)
        image = torch.fft.ifft(image, dim=axis, norm="forward")
    return image


def kspace_crop(image: Tensor, factor: Factor = 4, noise: Tensor | None = None) -> Tensor:
    """Low-resolution image on the unchanged matrix, `|F^-1 (M F image + noise)|` (zero-filled).

    Never give it an image with its mean taken out: the magnitude would fold the background.

    Args:
        image: (..., H, W), float32 or float64, MR signal in any unit, at least 0; (..., D, H, W)
            for a 3-D acquisition.
        factor: ratio of the full to the measured extent of k-space, at least 1, see
            `kspace_block`; 4 keeps 64 x 64 of 256 x 256 (6.25 %).
        noise: of the measured samples, from `kspace_noise` with the same factor; None for none.

    Returns:
        Same shape, type, device and unit, at least 0.

    Raises:
        OperatorError: wrong type, too few axes, a factor that is below 1 or too large, or noise of
            another shape than the block.

    Example:
        >>> import torch
        >>> from restore_rwkv.physics import kspace_crop
        >>> kspace_crop(torch.full((8, 8), 3.0), factor=4).mean()
        tensor(3.)
    """
    block = _measured(image, factor, noise)
    return zero_fill(block, tuple(image.shape[-_encoded_axes(factor) :])).abs()


def low_resolution(image: Tensor, factor: Factor = 4, noise: Tensor | None = None) -> Tensor:
    """Low-resolution image on its native small matrix, as a scanner would store it.

    The same measured block as in `kspace_crop`, with gain 1. Sample j of the small axis lies at the
    place of sample j * H / h of the full one, so an affine of the image becomes that of the result
    by multiplying its in-plane columns by H / h and W / w; its translation stays.

    Args:
        image: as for `kspace_crop`.
        factor: as for `kspace_crop`.
        noise: as for `kspace_crop`.

    Returns:
        (..., floor(H / f_h), floor(W / f_w)), and so on for three axes; same type, device and
        unit, at least 0.

    Raises:
        OperatorError: as `kspace_crop`.
    """
    block = _measured(image, factor, noise)
    return zero_fill(block, tuple(block.shape[-_encoded_axes(factor) :])).abs()


def fourier_interpolate(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """Image on a finer matrix over the same field of view, by zero-filling its k-space.

    Outer edges are kept, so sample j of an axis with N samples lies at the place
    `x_j = (j + 1/2) n / N - 1/2` of that with n: the first centre moves by `(n / N - 1) / 2`,
    a linear phase in k-space. (`zero_fill` keeps the first centre instead.) With c the Fourier
    coefficients of an axis the result is `sum_k c_k exp(2 pi i k x_j / n)`; the highest bin of an
    even n is shared by +n/2 and -n/2, so it is real. Band-limited periodic images are exact. Like
    any discrete Fourier transform it takes the image for periodic: opposite edges see each other,
    and steps ring, below 0 too; take the magnitude of what is one.

    Args:
        image: (..., h, w), float32 or float64, any unit.
        shape: (H, W), each at least as large.

    Returns:
        (..., H, W), same type, device and unit, gain 1 (the mean is kept).

    Raises:
        OperatorError: the image is not real with two axes, or the matrix is smaller.

    Example:
        >>> import torch
        >>> from restore_rwkv.physics.mri import fourier_interpolate
        >>> fourier_interpolate(torch.full((3, 4), 7.0), (6, 6)).mean()
        tensor(7.)
    """
    _check_image(image, _REAL_TYPES)
    if any(new < old for new, old in zip(shape, image.shape[-2:], strict=True)):
        raise OperatorError(
            f"an image of {_product(image.shape[-2:])} is larger than the matrix of "
            f"{_product(shape)}; give a matrix at least as large"
        )
    for axis, new in ((-2, shape[0]), (-1, shape[1])):
        old = image.shape[axis]
        if new == old:
            continue
        spectrum = torch.fft.rfft(image, dim=axis, norm="forward")
        bins = torch.arange(old // 2 + 1, dtype=image.dtype, device=image.device)
        share = torch.where(bins == old / 2, 0.5, 1.0).to(image.dtype)
        phase = torch.polar(share, math.pi * (1 / new - 1 / old) * bins)
        spectrum = spectrum * (phase[:, None] if axis == -2 else phase)
        image = torch.fft.irfft(spectrum, new, dim=axis, norm="forward")
    return image


def thick_slices(volume: Tensor, thickness: float, step: float, axis: int = -3) -> Tensor:
    """Slices of a 2-D multislice acquisition: a Gaussian profile along an axis, then fewer slices.

    Slice j is `sum_i w_ij volume_i`, with `w` a Gaussian of full width `thickness` at half maximum
    about `x_j = (j + 1/2) step - 1/2`, normalised to a sum of 1 (at the ends over the slices that
    are there), so that gain is 1. The profile acts on the magnitude, as if phase were constant
    across a slice. The outer edge before the first slice is kept: an affine of the volume becomes
    that of the result by moving its origin (step - 1) / 2 old slices along the axis and
    multiplying its column by `step`.

    Args:
        volume: (..., D, H, W), float32 or float64, any unit.
        thickness: full width at half maximum, in slices of the volume (millimetres over its
            spacing), at least 1.
        step: distance of the new slices in slices of the volume, at least 1; above `thickness`
            leaves gaps, below it overlaps.
        axis: across the slices.

    Returns:
        The volume with floor(D / step) slices along the axis, same type, device and unit.

    Raises:
        OperatorError: wrong type or number of axes, thickness or step below 1 or not finite, or no
            slice is left.
    """
    _check_image(volume, _REAL_TYPES)
    if not -volume.ndim <= axis < volume.ndim:
        raise OperatorError(f"axis {axis} of {volume.ndim}; give one that the volume has")
    for name, value in (("thickness", thickness), ("step", step)):
        if not (math.isfinite(value) and value >= 1):
            raise OperatorError(f"{name} is {value:g} slices; give a finite number of at least 1")
    depth = volume.shape[axis]
    count = math.floor(depth / step + 1e-9)
    if count < 1:
        raise OperatorError(f"step {step:g} leaves no slice of {depth}; give at most {depth}")
    places = torch.arange(depth, dtype=volume.dtype, device=volume.device)
    centres = (places[:count, None] + 0.5) * step - 0.5
    profile = torch.exp(-0.5 * ((places - centres) * (_FWHM / thickness)) ** 2)
    profile = profile / profile.sum(dim=1, keepdim=True)
    slices: Tensor = torch.tensordot(profile, volume, ([1], [axis])).movedim(0, axis)
    return slices


def _measured(image: Tensor, factor: Factor, noise: Tensor | None) -> Tensor:
    """Measured samples of a real image, with their noise."""
    _check_image(image, _REAL_TYPES)
    block = kspace_block(image, factor)
    if noise is None:
        return block
    if noise.shape != block.shape:
        raise OperatorError(
            f"noise has shape {tuple(noise.shape)}, the k-space block {tuple(block.shape)}; draw "
            "it for the same image and factor"
        )
    return block + noise


def _encoded_axes(factor: Factor) -> int:
    return len(factor) if isinstance(factor, tuple) else 2


def _samples_kept(shape: tuple[int, ...], factor: Factor) -> tuple[int, ...]:
    """Samples kept along the last axes, one for each entry of the factor."""
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
        # The margin keeps a factor written as size / samples from losing a sample to rounding.
        kept.append(math.floor(size / ratio + 1e-9))
        if kept[-1] < 1:
            raise OperatorError(
                f"k-space factor {ratio:g} leaves no sample of {size}; give a factor of at most "
                f"{size}"
            )
    return tuple(kept)


def _bins(kept: int, size: int, device: torch.device) -> Tensor:
    """Places, in FFT order of an axis of `size`, of `kept` bins in rising order of frequency."""
    return torch.arange(-(kept // 2), kept - kept // 2, device=device) % size


def _product(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)


def _check_image(image: Tensor, types: tuple[torch.dtype, ...]) -> None:
    if image.dtype not in types:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in types)
        name = str(image.dtype).removeprefix("torch.")
        raise OperatorError(f"image has type {name}; convert it to one of {allowed}")
    if image.ndim < 2 or 0 in image.shape[-2:]:
        raise OperatorError(f"image has shape {tuple(image.shape)}; give (..., H, W), not empty")
