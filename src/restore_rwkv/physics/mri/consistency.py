"""Images that agree with measured k-space samples of which only the magnitude image is known."""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri.cartesian import CartesianMRI
from restore_rwkv.physics.mri.kspace import REAL_TYPES, Factor, check_image


def keep_measured(
    image: Tensor, low: Tensor, factor: Factor = 4, steps: int = 1, *, magnitude: bool = True
) -> Tensor:
    """Image whose measured block of k-space agrees with the low-resolution image.

    With `A` and N of `CartesianMRI`, `P = N A_adjoint A = F^-1 M F` is the orthogonal projection
    onto the images of the block, and the low-resolution image of x is `|P x|` (`kspace_crop`).
    The magnitude has lost the sign (for an even block, which is not symmetric, the phase), so that
    re-inserting the samples of `low` itself would insert folded ringing. Each step takes the sign
    from the current image and then re-inserts the samples:

        y_c = low * exp(i angle(P x))
        x <- max(0, x + Re P (y_c - P x))

    Re is the adjoint of the embedding of real into complex images: a step is a projected gradient
    step of length 1 for `|P x - y_c|^2 / 2`. So `| |P x| - low |` never increases, and an image of
    which `low` is the low-resolution image stays as it is. In an odd block the samples agree with
    y_c after each step, until negative values are clipped; at the edge of an even block, which
    lacks the opposite frequency, a quarter of the difference goes each time where `|P x|` is far
    above 0.

    Sources: error reduction for a known magnitude (Fienup, Applied Optics 21:2758, 1982); data
    consistency of a network's output, without noise (Schlemper et al., IEEE TMI 37:491, 2018).

    Args:
        image: (..., H, W), float32 or float64, such as the output of a network.
        low: the low-resolution image on the unchanged matrix, in the shape, type and unit of
            `image`.
        factor: ratio of the full to the measured extent of k-space, one number or one per axis.
        steps: 0 or more; 0 returns the image as it is.
        magnitude: whether `low` is a magnitude. Otherwise it has signs of its own, which are used
            (`y_c = low`), and negative values are not clipped.

    Returns:
        Same shape, type, device and unit; at least 0 for a magnitude after a step or more.

    Raises:
        OperatorError: wrong type, shapes that differ, an invalid factor, or steps below 0.

    Example:
        >>> import torch
        >>> from restore_rwkv.physics.mri import keep_measured
        >>> keep_measured(torch.zeros(8, 8), torch.full((8, 8), 3.0)).mean()
        tensor(3.)
    """
    check_image(image, REAL_TYPES)
    _check_alike(image, low)
    if operator.index(steps) < 0:
        raise OperatorError(f"steps is {steps}; give a whole number from 0")
    system = CartesianMRI((image.shape[-2], image.shape[-1]), factor)
    for _ in range(steps):
        block = system.A(image)
        measured = low
        if magnitude:
            measured = torch.polar(low, _zero_filled(system, block).angle())
        image = image + _zero_filled(system, system.A(measured) - block).real
        if magnitude:
            image = image.clamp(min=0)
    return image


def measured_part(image: Tensor, factor: Factor = 4) -> Tensor:
    """Part of an image that lies in the measured block of k-space, `P x = F^-1 M F x`.

    P is the orthogonal projection of `keep_measured`, so `|x|^2 = |P x|^2 + |x - P x|^2`: the first
    part can be held against a measurement, and of the second, `x - P x`, nothing was measured.

    Args:
        image: (..., H, W), float32 or float64.
        factor: ratio of the full to the measured extent of k-space, one number or one per axis.

    Returns:
        Same shape and unit, complex: an even block lacks the opposite of its highest frequency.

    Raises:
        OperatorError: wrong type or shape, or an invalid factor.
    """
    check_image(image, REAL_TYPES)
    system = CartesianMRI((image.shape[-2], image.shape[-1]), factor)
    return _zero_filled(system, system.A(image))


def disagreement(
    image: Tensor, low: Tensor, factor: Factor = 4, *, magnitude: bool = True
) -> Tensor:
    """Difference of a low-resolution image from that of another image, `low - |P x|`.

    It is 0 where `low` is the low-resolution image of x (`kspace_crop`), whatever x has outside the
    measured block. Without `magnitude` it is `low - Re P x`.

    Args:
        image: (..., H, W), float32 or float64, x.
        low: low-resolution image in the shape, type and unit of `image`.
        factor: ratio of the full to the measured extent of k-space, one number or one per axis.
        magnitude: whether `low` is a magnitude; otherwise it has signs of its own.

    Returns:
        Same shape, type and unit; above 0 where `low` is larger.

    Raises:
        OperatorError: wrong type, shapes or types that differ, or an invalid factor.
    """
    part = measured_part(image, factor)
    _check_alike(image, low)
    return low - (part.abs() if magnitude else part.real)


def _check_alike(image: Tensor, low: Tensor) -> None:
    if image.shape != low.shape or image.dtype != low.dtype:
        raise OperatorError(
            f"low has shape {tuple(low.shape)} and type {low.dtype}, the image "
            f"{tuple(image.shape)} and {image.dtype}; give both alike"
        )


def _zero_filled(system: CartesianMRI, block: Tensor) -> Tensor:
    return system.A_adjoint(block) * math.prod(system.shape)
