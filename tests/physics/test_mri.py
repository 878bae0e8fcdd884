"""k-space cropping against the definition written out with NumPy, and its invariants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics import (
    kspace_block,
    kspace_block_shape,
    kspace_crop,
    low_resolution,
    zero_fill,
)

SHAPES = [(32, 32), (31, 45), (24, 37), (8, 5)]


def image_of(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def bins_kept(size: int, factor: float) -> np.ndarray:
    kept = int(size / factor)
    return np.arange(kept) - kept // 2


def low_frequency_image(height: int, width: int) -> Tensor:
    """Positive image with all its energy strictly inside the block of factor 4."""
    rows = torch.arange(height, dtype=torch.float64) / height
    columns = torch.arange(width, dtype=torch.float64) / width
    waves = torch.cos(2 * torch.pi * (rows[:, None] + 0.1)) + torch.sin(
        2 * torch.pi * (2 * rows[:, None] - columns)
    )
    return 5 + waves


def test_papers_block_is_bins_minus_32_to_31() -> None:
    place = torch.arange(256, dtype=torch.float64) / 256
    for bin_, kept in [(-33, False), (-32, True), (31, True), (32, False)]:
        wave = torch.polar(torch.ones_like(place), 2 * torch.pi * bin_ * place)
        image = wave[:, None].expand(256, 256).contiguous()
        block = kspace_block(image, 4)
        assert block.shape == (64, 64)
        assert block.abs().sum().item() == pytest.approx(1.0 if kept else 0.0, abs=1e-10)
        if kept:
            assert block[bin_ + 32, 32].abs().item() == pytest.approx(1.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_definition(shape: tuple[int, int]) -> None:
    image = image_of(*shape)
    spectrum = np.fft.fft2(image.numpy())
    mask = np.zeros(shape)
    mask[np.ix_(bins_kept(shape[0], 4), bins_kept(shape[1], 4))] = 1
    expected = np.abs(np.fft.ifft2(spectrum * mask))
    np.testing.assert_allclose(kspace_crop(image, 4).numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("factor", [1, 2.5, 4, (1.0, 4.0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_block_of_the_zero_filled_image_is_the_block(
    shape: tuple[int, int], factor: float | tuple[float, float]
) -> None:
    block = kspace_block(image_of(*shape), factor)
    again = kspace_block(zero_fill(block, shape), factor)
    torch.testing.assert_close(again, block, rtol=0, atol=1e-15)


def test_factor_one_changes_nothing() -> None:
    image = image_of(21, 16)
    torch.testing.assert_close(kspace_crop(image, 1), image)
    torch.testing.assert_close(low_resolution(image, 1), image)


@pytest.mark.parametrize("shape", SHAPES)
def test_constant_image_keeps_its_value(shape: tuple[int, int]) -> None:
    image = torch.full(shape, 812.5, dtype=torch.float64)
    torch.testing.assert_close(kspace_crop(image), image)
    small = low_resolution(image)
    torch.testing.assert_close(small, torch.full_like(small, 812.5))


def test_gain_is_one_for_what_is_measured() -> None:
    image = low_frequency_image(48, 33)
    torch.testing.assert_close(kspace_crop(image), image)


def test_small_matrix_samples_the_same_image() -> None:
    """Sample j of the small axis is sample 4 j of the zero-filled one: nothing shifts."""
    image = image_of(32, 48)
    torch.testing.assert_close(low_resolution(image), kspace_crop(image)[::4, ::4])


def test_small_matrix_of_odd_sizes_lies_at_fractions_of_the_axis() -> None:
    shape = (30, 45)  # 7 x 11 kept
    small = low_resolution(low_frequency_image(*shape))
    rows = torch.arange(7, dtype=torch.float64) / 7
    columns = torch.arange(11, dtype=torch.float64) / 11
    expected = (
        5
        + torch.cos(2 * torch.pi * (rows[:, None] + 0.1))
        + torch.sin(2 * torch.pi * (2 * rows[:, None] - columns))
    )
    torch.testing.assert_close(small, expected)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 45)])
def test_impulse_stays_where_it_is(height: int, width: int) -> None:
    image = torch.zeros(height, width, dtype=torch.float64)
    image[10, 17] = 1.0
    blurred = kspace_crop(image)
    assert divmod(int(blurred.argmax()), width) == (10, 17)
    torch.testing.assert_close(blurred[9, 17], blurred[11, 17])
    torch.testing.assert_close(blurred[10, 16], blurred[10, 18])


def test_half_turn_and_transposition_commute() -> None:
    image = image_of(32, 32)
    low = kspace_crop(image)
    torch.testing.assert_close(kspace_crop(image.flip(0, 1)), low.flip(0, 1))
    torch.testing.assert_close(kspace_crop(image.T), low.T)
    assert (kspace_crop(image.flip(0)) - low.flip(0)).abs().max() > 1e-3  # the block is even


@pytest.mark.parametrize("operator", [kspace_crop, low_resolution])
def test_batch_is_the_same_as_a_loop(operator: Callable[..., Tensor]) -> None:
    images = image_of(2, 3, 20, 27)
    batch = operator(images, 3)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(batch[i, j], operator(images[i, j], 3), rtol=0, atol=1e-15)


def test_any_strides() -> None:
    image = image_of(40, 26)
    torch.testing.assert_close(kspace_crop(image.T), kspace_crop(image.T.contiguous()))


def test_scaling_of_the_image_scales_the_result() -> None:
    image = image_of(32, 40, dtype=torch.float32)
    torch.testing.assert_close(
        kspace_crop(1000 * image), 1000 * kspace_crop(image), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_is_kept(dtype: torch.dtype) -> None:
    image = image_of(24, 37, dtype=dtype)
    assert kspace_crop(image).dtype == low_resolution(image).dtype == dtype
    error = kspace_crop(image).double() - kspace_crop(image.double())
    assert error.abs().max() < (1e-6 if dtype == torch.float32 else 1e-15)


def test_differentiable() -> None:
    image = (1 + image_of(6, 7)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: kspace_crop(x, 2), (image,))


@pytest.mark.parametrize(
    ("size", "factor", "kept"), [(256, 4, 64), (217, 4, 54), (181, 4, 45), (49, 49 / 11, 11)]
)
def test_samples_kept(size: int, factor: float, kept: int) -> None:
    assert kspace_block_shape(size, 256, (factor, 1)) == (kept, 256)


@pytest.mark.parametrize(
    ("image", "factor", "message"),
    [
        (torch.zeros(8, 8), 0.5, "factor is 0.5"),
        (torch.zeros(8, 8), float("nan"), "factor is nan"),
        (torch.zeros(8, 3), 4, "leaves no sample of 3"),
        (torch.zeros(8, 8), (2, 2, 2), "3 entries"),
        (torch.zeros(8), 4, r"shape \(8,\)"),
        (torch.zeros(8, 8, dtype=torch.int16), 4, "type int16"),
        (torch.zeros(8, 8, dtype=torch.complex64), 4, "type complex64"),
    ],
)
def test_errors(image: Tensor, factor: Any, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        kspace_crop(image, factor)


def test_block_larger_than_the_matrix() -> None:
    with pytest.raises(OperatorError, match="does not fit a matrix of 4 x 8"):
        zero_fill(torch.zeros(8, 8, dtype=torch.complex64), (4, 8))
