"""Cartesian MRI as an operator: its adjoint, and the relation to the zero-filled image."""

from __future__ import annotations

import pytest
import torch

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri import (
    CartesianMRI,
    kspace_crop,
    kspace_noise,
    reduce_resolution,
)


@pytest.mark.parametrize(
    ("shape", "factor"), [((16, 12), 4), ((17, 13), 3.0), ((16, 9), (2.0, 1.0)), ((8, 8), 8)]
)
def test_the_adjoint_is_the_adjoint(shape: tuple[int, int], factor: float) -> None:
    system = CartesianMRI(shape, factor)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, *shape), dtype=torch.complex128, generator=generator)
    y = torch.randn((2, *system.kept), dtype=torch.complex128, generator=generator)
    left = torch.sum(system.A(x) * y.conj())
    right = torch.sum(x * system.A_adjoint(y).conj())
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_the_adjoint_times_the_pixels_is_the_zero_filled_image() -> None:
    image = torch.rand(3, 16, 12, dtype=torch.float64)
    system = CartesianMRI((16, 12), 4)
    filled = 16 * 12 * system.A_adjoint(system.A(image))
    torch.testing.assert_close(filled.abs(), kspace_crop(image, 4))
    again = 16 * 12 * system.A(system.A_adjoint(system.A(image)))
    torch.testing.assert_close(again, system.A(image))  # the rows of A are orthogonal


def test_other_shapes_and_factors_are_refused() -> None:
    system = CartesianMRI((16, 12), 4)
    with pytest.raises(OperatorError, match=r"image has shape .*give .* of 16 x 12"):
        system.A(torch.ones(12, 16))
    with pytest.raises(OperatorError, match="block has shape"):
        system.A_adjoint(torch.ones(3, 4, dtype=torch.complex64))
    with pytest.raises(OperatorError, match="leaves no sample"):
        CartesianMRI((16, 12), 13)


def test_reduced_resolution_draws_its_noise_from_the_generator() -> None:
    image = torch.rand(2, 16, 12)
    torch.testing.assert_close(reduce_resolution(image, factor=2), kspace_crop(image, 2))
    noise = kspace_noise((2, 16, 12), 0.1, torch.Generator().manual_seed(1), 2)
    noisy = reduce_resolution(
        image, factor=2, sigma=0.1, generator=torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(noisy, kspace_crop(image, 2, noise))
    with pytest.raises(OperatorError, match=r"give a torch\.Generator"):
        reduce_resolution(image, sigma=0.1)
