"""MRI at low resolution: only the centre of k-space is measured, or slices are thick.

With F the Fourier transform over the encoded axes and M the selection of a central block of
k-space, the image that the paper calls low quality (section IV-A) is `|F^-1 M F image|` on the
unchanged matrix: no window, no noise, gain 1. Noise on the measured samples, a third encoded axis
and thick slices of 2-D acquisitions are options. Module `kspace` defines the samples.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri.kspace import (
    REAL_TYPES,
    Factor,
    check_image,
    kspace_block,
    kspace_noise,
    matrix_text,
    zero_fill,
)

_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian with standard deviation 1


def kspace_crop(image: Tensor, factor: Factor = 4, noise: Tensor | None = None) -> Tensor:
    """Low-resolution image on the unchanged matrix, `|F^-1 (M F image + noise)|` (zero-filled).

    Do not subtract the mean of the image first: the magnitude would fold negative values over.

    Args:
        image: (..., H, W), float32 or float64, MR signal in any unit, at least 0; (..., D, H, W)
            for a 3-D acquisition.
        factor: ratio of the full to the measured extent of k-space, at least 1, see
            `kspace_block`; 4 keeps 64 x 64 of 256 x 256 (6.25 %).
        noise: noise of the measured samples, from `kspace_noise` with the same factor; None for no
            noise.

    Returns:
        Same shape, type, device and unit, at least 0.

    Raises:
        OperatorError: wrong type, too few axes, a factor that is below 1 or too large, or noise
            whose shape is not that of the block.

    Example:
        >>> import torch
        >>> from restore_rwkv.physics.mri import kspace_crop
        >>> kspace_crop(torch.full((8, 8), 3.0), factor=4).mean()
        tensor(3.)
    """
    block = _measured(image, factor, noise)
    return zero_fill(block, tuple(image.shape[-_encoded_axes(factor) :])).abs()


def low_resolution(image: Tensor, factor: Factor = 4, noise: Tensor | None = None) -> Tensor:
    """Low-resolution image on its native small matrix, as a scanner would store it.

    Uses the same measured block as `kspace_crop`, with gain 1. Sample j of the small axis lies at
    the position of sample j * H / h of the full axis. To get the affine of the result, multiply the
    in-plane columns of the image's affine by H / h and W / w; its translation does not change.

    Args:
        image: as for `kspace_crop`.
        factor: as for `kspace_crop`.
        noise: as for `kspace_crop`.

    Returns:
        (..., floor(H / f_h), floor(W / f_w)), likewise for three axes; same type, device and unit,
        at least 0.

    Raises:
        OperatorError: as for `kspace_crop`.
    """
    block = _measured(image, factor, noise)
    return zero_fill(block, tuple(block.shape[-_encoded_axes(factor) :])).abs()


def reduce_resolution(
    image: Tensor,
    *,
    factor: Factor = 4,
    sigma: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Low-resolution image on the unchanged matrix, with the receiver's noise.

    Draws the noise with `kspace_noise` and applies `kspace_crop`.

    Args:
        image: as for `kspace_crop`.
        factor: as for `kspace_crop`.
        sigma: standard deviation of the noise, as for `kspace_noise`; 0 for no noise.
        generator: the only source of randomness; required if sigma is above 0.

    Returns:
        As `kspace_crop`.

    Raises:
        OperatorError: as for `kspace_crop` and `kspace_noise`, or the generator is missing.
    """
    noise = None
    if sigma:
        if generator is None:
            raise OperatorError("sigma is given without a generator; give a torch.Generator")
        noise = kspace_noise(tuple(image.shape), sigma, generator, factor)
    return kspace_crop(image, factor, noise)


def cubic_interpolate(coarse: Tensor, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Interpolate a coarse image (h, w) to (H, W) by cubic splines, as viewers do.

    Sample j of an axis of the coarse image lies at j * H / h, as in `low_resolution`. Beyond the
    last sample the image continues with the first: the discrete Fourier transform is periodic.
    """
    from scipy.ndimage import affine_transform  # slow to import; used only to compare images

    step = [small / large for small, large in zip(coarse.shape, shape, strict=True)]
    interpolated: NDArray[np.float32] = affine_transform(
        coarse.numpy(), step, output_shape=tuple(shape), order=3, mode="grid-wrap"
    )
    return interpolated


def fourier_interpolate(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """Image on a finer matrix over the same field of view, by zero-filling its k-space.

    The outer edges of the image are preserved, so sample j of an axis with N samples lies at the
    position `x_j = (j + 1/2) n / N - 1/2` of the axis with n samples: the first centre moves by
    `(n / N - 1) / 2`, a linear phase in k-space. (`zero_fill` preserves the first centre instead.)
    With c the Fourier coefficients of an axis the result is `sum_k c_k exp(2 pi i k x_j / n)`; the
    highest bin of an even n is shared by +n/2 and -n/2, so the result is real. Band-limited
    periodic images are interpolated exactly. Like any discrete Fourier transform, it assumes a
    periodic image: opposite edges affect each other, and steps ring, also below 0. For magnitude
    images, take the absolute value of the result.

    Args:
        image: (..., h, w), float32 or float64, any unit.
        shape: (H, W), each at least as large as in the image.

    Returns:
        (..., H, W), same type, device and unit, gain 1 (the mean is kept).

    Raises:
        OperatorError: the image is not real with at least two axes, or the matrix is smaller.

    Example:
        >>> import torch
        >>> from restore_rwkv.physics.mri.resolution import fourier_interpolate
        >>> fourier_interpolate(torch.full((3, 4), 7.0), (6, 6)).mean()
        tensor(7.)
    """
    check_image(image, REAL_TYPES)
    if any(new < old for new, old in zip(shape, image.shape[-2:], strict=True)):
        raise OperatorError(
            f"an image of {matrix_text(image.shape[-2:])} is larger than the matrix of "
            f"{matrix_text(shape)}; give a matrix at least as large"
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
    around `x_j = (j + 1/2) step - 1/2`, normalised to a sum of 1 (at the ends over the existing
    slices), so the gain is 1. The profile acts on the magnitude, as if the phase were constant
    across a slice. The outer edge before the first slice is preserved: to get the affine of the
    result, move the origin of the volume's affine (step - 1) / 2 old slices along the axis and
    multiply its column by `step`.

    Args:
        volume: (..., D, H, W), float32 or float64, any unit.
        thickness: full width at half maximum, in slices of the volume (millimetres over its
            spacing), at least 1.
        step: distance between new slices, in slices of the volume, at least 1; new slices have gaps
            if it is above `thickness` and overlap if it is below.
        axis: axis across the slices.

    Returns:
        The volume with floor(D / step) slices along the axis, same type, device and unit.

    Raises:
        OperatorError: wrong type or number of axes, a thickness or step that is below 1 or not
            finite, or a step that leaves no slice.
    """
    check_image(volume, REAL_TYPES)
    if not -volume.ndim <= axis < volume.ndim:
        raise OperatorError(
            f"axis {axis} of {volume.ndim} does not exist; give an axis from {-volume.ndim} to "
            f"{volume.ndim - 1}"
        )
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
    """Return the measured samples of a real image, with noise added if it is given."""
    check_image(image, REAL_TYPES)
    block = kspace_block(image, factor)
    if noise is None:
        return block
    if noise.shape != block.shape:
        raise OperatorError(
            f"noise has shape {tuple(noise.shape)}, the k-space block {tuple(block.shape)}; draw "
            "the noise for the same image and factor"
        )
    return block + noise


def _encoded_axes(factor: Factor) -> int:
    return len(factor) if isinstance(factor, tuple) else 2
