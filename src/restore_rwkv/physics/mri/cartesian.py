"""Cartesian MRI as a linear operator with its adjoint: the central block of k-space."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri.kspace import (
    Factor,
    kspace_block,
    kspace_block_shape,
    matrix_text,
    zero_fill,
)


@dataclass(frozen=True)
class CartesianMRI:
    """The measurement `A = M F` of an image: its k-space samples in a central block.

    F is the discrete Fourier transform divided by the number of pixels N, so that samples are in
    units of the image (see `kspace_block`), and M keeps the block. The rows of A are orthogonal:
    `A A_adjoint = 1 / N`, and `N * A_adjoint` is the zero-filled image.

    Attributes:
        shape: (H, W) of the image.
        factor: ratio of the full to the measured extent of k-space, one number or one per axis.

    Raises:
        OperatorError: a factor is below 1, or larger than the axis that it divides.

    Example:
        >>> import torch
        >>> from restore_rwkv.physics.mri import CartesianMRI
        >>> system = CartesianMRI((8, 8), factor=4)
        >>> system.A(torch.ones(8, 8)).shape
        torch.Size([2, 2])
    """

    shape: tuple[int, int]
    factor: Factor = 4

    def __post_init__(self) -> None:
        kspace_block_shape(*self.shape, self.factor)

    @property
    def kept(self) -> tuple[int, int]:
        """Number of measured samples (h, w)."""
        return kspace_block_shape(*self.shape, self.factor)

    @property
    def symmetric(self) -> tuple[bool, bool]:
        """Whether the block is its own mirror image, by axis: odd, or all of k-space."""
        rows, columns = (m % 2 == 1 or m == n for m, n in zip(self.kept, self.shape, strict=True))
        return rows, columns

    def A(self, image: Tensor) -> Tensor:  # noqa: N802 - the literature's name
        """Measure an image.

        Args:
            image: (..., H, W), real or complex.

        Returns:
            (..., h, w), complex, in units of the image.

        Raises:
            OperatorError: the image has another shape or a wrong type.
        """
        self._check("image", image, self.shape)
        return kspace_block(image, self.factor)

    def A_adjoint(self, block: Tensor) -> Tensor:  # noqa: N802 - the literature's name
        """Apply the adjoint: `<A x, y> = <x, A_adjoint y>` for all images x and samples y.

        Args:
            block: (..., h, w), complex.

        Returns:
            (..., H, W), complex.

        Raises:
            OperatorError: the block has another shape or is not complex.
        """
        self._check("block", block, self.kept)
        return zero_fill(block, self.shape) / math.prod(self.shape)

    def _check(self, name: str, x: Tensor, shape: tuple[int, int]) -> None:
        if tuple(x.shape[-2:]) != shape:
            raise OperatorError(
                f"{name} has shape {tuple(x.shape)}; give (..., H, W) of {matrix_text(shape)}"
            )
