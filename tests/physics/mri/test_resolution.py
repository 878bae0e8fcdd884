"""Low-resolution MRI against the definition written out with NumPy, and its invariants."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri.kspace import kspace_block, kspace_noise, zero_fill
from restore_rwkv.physics.mri.resolution import (
    fourier_interpolate,
    kspace_crop,
    low_resolution,
    thick_slices,
)
from tests.helpers.kspace_images import SHAPES, bins_kept, generator, image_of


def low_frequency_image(height: int, width: int) -> Tensor:
    """Positive image with all its energy strictly inside the block of factor 4."""
    rows = torch.arange(height, dtype=torch.float64) / height
    columns = torch.arange(width, dtype=torch.float64) / width
    waves = torch.cos(2 * torch.pi * (rows[:, None] + 0.1)) + torch.sin(
        2 * torch.pi * (2 * rows[:, None] - columns)
    )
    return 5 + waves


@pytest.mark.parametrize("shape", SHAPES)
def test_definition(shape: tuple[int, int]) -> None:
    image = image_of(*shape)
    spectrum = np.fft.fft2(image.numpy())
    mask = np.zeros(shape)
    mask[np.ix_(bins_kept(shape[0], 4), bins_kept(shape[1], 4))] = 1
    expected = np.abs(np.fft.ifft2(spectrum * mask))
    np.testing.assert_allclose(kspace_crop(image, 4).numpy(), expected, atol=1e-14)


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


@pytest.mark.parametrize("factor", [1, 2, (4.0, 1.5)])
def test_noise_in_air_is_rayleigh_with_what_the_kept_fraction_leaves(factor: Any) -> None:
    shape, sigma = (40, 96, 80), 7.0
    air = torch.zeros(shape, dtype=torch.float64)
    noise = kspace_noise(shape, sigma, generator(), factor, torch.float64)
    kept = noise.shape[1] * noise.shape[2] / (96 * 80)
    expected = sigma * math.sqrt(kept) * math.sqrt(math.pi / 2)
    measured = kspace_crop(air, factor, noise)
    count = kept * air.numel()  # independent values; sd / mean of a Rayleigh variable is 0.523
    assert measured.mean().item() == pytest.approx(expected, rel=4 * 0.523 / math.sqrt(count))
    small = low_resolution(air, factor, noise)
    assert small.mean().item() == pytest.approx(expected, rel=4 * 0.523 / math.sqrt(count))
    power = measured.square().mean().item()  # 2 sigma^2, Parseval
    assert power == pytest.approx(2 * sigma**2 * kept, rel=4 / math.sqrt(count))


def test_noise_on_signal_is_rician() -> None:
    """Far above the noise, the magnitude has its mean raised by sigma^2 / (2 A)."""
    shape, sigma, signal = (200, 32, 32), 2.0, 40.0
    image = torch.full(shape, signal, dtype=torch.float64)
    noisy = kspace_crop(image, 1, kspace_noise(shape, sigma, generator(), 1, torch.float64))
    error = 5 * sigma / math.sqrt(image.numel())
    assert noisy.mean().item() == pytest.approx(signal + sigma**2 / (2 * signal), abs=error)
    assert noisy.std().item() == pytest.approx(sigma, rel=0.01)


def test_noise_is_added_to_the_measured_samples_exactly() -> None:
    image = image_of(3, 24, 21)
    noise = kspace_noise((3, 24, 21), 0.1, generator(), 3, torch.float64)
    expected = zero_fill(kspace_block(image, 3) + noise, (24, 21)).abs()
    assert torch.equal(kspace_crop(image, 3, noise), expected)
    assert torch.equal(kspace_crop(image, 3, 0 * noise), kspace_crop(image, 3))


@pytest.mark.parametrize("factor", [(1.0, 1.0, 1.0), (2.0, 4.0, 4.0), (3.0, 1.5, 2.0)])
@pytest.mark.parametrize("shape", [(8, 12, 16), (7, 13, 10)])
def test_a_third_axis_by_definition(
    shape: tuple[int, int, int], factor: tuple[float, float, float]
) -> None:
    image = image_of(2, *shape)
    mask = np.zeros(shape)
    mask[np.ix_(*(bins_kept(n, f) for n, f in zip(shape, factor, strict=True)))] = 1
    spectrum = np.fft.fftn(image.numpy(), axes=(1, 2, 3))
    expected = np.abs(np.fft.ifftn(spectrum * mask, axes=(1, 2, 3)))
    result = kspace_crop(image, factor)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-14)
    kept = tuple(len(bins_kept(n, f)) for n, f in zip(shape, factor, strict=True))
    assert low_resolution(image, factor).shape == (2, *kept)
    again = kspace_block(zero_fill(kspace_block(image, factor), shape), factor)
    torch.testing.assert_close(again, kspace_block(image, factor), rtol=0, atol=1e-15)
    noise = kspace_noise((2, *shape), 1.0, generator(), factor, torch.float64)
    assert noise.shape == (2, *kept)
    flat = kspace_crop(image, (1.0, *factor[1:]))
    torch.testing.assert_close(flat, kspace_crop(image, factor[1:]))  # nothing lost along D


@pytest.mark.parametrize("kept", [(7, 9), (5, 11)])
def test_the_measured_centre_is_kept_exactly(kept: tuple[int, int]) -> None:
    """Holds for a magnitude image if nothing rings below 0 and the block is symmetric."""
    image, factor = 3 + image_of(24, 28), (24 / kept[0], 28 / kept[1])
    block = kspace_block(image, factor)
    assert block.shape == kept
    torch.testing.assert_close(
        kspace_block(kspace_crop(image, factor), factor), block, rtol=0, atol=1e-14
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [(8, 32), (8, 33), (9, 36), (9, 22), (7, 8), (8, 9), (12, 12), (1, 4), (2, 5)],
)
def test_interpolation_is_exact_for_band_limited_images(old: int, new: int) -> None:
    """Includes the highest bin of an even axis, of which the samples contain only the cosine."""

    def wave(place: Tensor) -> Tensor:
        angle = 2 * torch.pi * place / old
        total = torch.full_like(place, 3.0)
        for order in range(1, (old - 1) // 2 + 1):
            total = total + torch.cos(order * angle + order) / order
        return total + (torch.cos(torch.pi * place) if old % 2 == 0 else 0)

    coarse = torch.arange(old, dtype=torch.float64)
    fine = (torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5
    image = wave(coarse)[:, None] * wave(coarse)
    expected = wave(fine)[:, None] * wave(fine)
    result = fourier_interpolate(image, (new, new))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    single = fourier_interpolate(image.float(), (new, new))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=3e-5)


def test_interpolation_keeps_mean_symmetry_and_what_it_is_given() -> None:
    image = image_of(2, 9, 14)
    fine = fourier_interpolate(image, (20, 35))
    torch.testing.assert_close(fine.mean((-2, -1)), image.mean((-2, -1)))
    torch.testing.assert_close(fourier_interpolate(image.flip(-1), (20, 35)), fine.flip(-1))
    torch.testing.assert_close(fourier_interpolate(image.mT, (35, 20)), fine.mT)
    assert torch.equal(fourier_interpolate(image, (9, 14)), image)
    assert torch.autograd.gradcheck(
        lambda x: fourier_interpolate(x, (7, 11)), image_of(4, 5).requires_grad_()
    )
    with pytest.raises(OperatorError, match="of 9 x 14 is larger than the matrix of 8 x 20"):
        fourier_interpolate(image, (8, 20))


@pytest.mark.parametrize(("thickness", "step"), [(40.0, 40.0), (25.0, 50.0), (60.0, 7.5)])
def test_slice_profile_has_its_width_at_half_maximum(thickness: float, step: float) -> None:
    """Measures the response of one slice to a point that is moved through it in fine steps."""
    depth = 500
    points = torch.eye(depth, dtype=torch.float64)  # (position of the point, depth)
    slices = thick_slices(points[:, :, None, None], thickness, step)[..., 0, 0]
    index = slices.shape[1] // 2
    response = slices[:, index].numpy()
    centre = (index + 0.5) * step - 0.5
    peak = np.exp(-0.5 * ((np.round(centre) - centre) * 2.3548 / thickness) ** 2)
    half = response.max() / peak / 2
    above = np.flatnonzero(response >= half)
    low, high = int(above[0]), int(above[-1])
    left = low - (response[low] - half) / (response[low] - response[low - 1])
    right = high + (response[high] - half) / (response[high] - response[high + 1])
    assert right - left == pytest.approx(thickness, rel=1e-3)
    assert (left + right) / 2 == pytest.approx(centre, abs=0.02)
    assert response.sum() == pytest.approx(1)


@pytest.mark.parametrize(("thickness", "step", "slices"), [(5, 5, 6), (3, 6, 5), (6, 2.5, 12)])
def test_thick_slices_have_gain_1_and_keep_the_edge(
    thickness: float, step: float, slices: int
) -> None:
    flat = torch.full((30, 6, 7), 81.0)
    thick = thick_slices(flat, thickness, step)
    assert thick.shape == (slices, 6, 7)
    torch.testing.assert_close(thick, torch.full_like(thick, 81.0))
    ramp = torch.arange(30, dtype=torch.float64)[:, None, None].expand(30, 2, 2)
    places = (torch.arange(slices, dtype=torch.float64) + 0.5) * step - 0.5
    inner = (places > 1.3 * thickness) & (places < 29 - 1.3 * thickness)  # three sd from the ends
    found = thick_slices(ramp, thickness, step)[:, 0, 0]
    torch.testing.assert_close(found[inner], places[inner], rtol=0, atol=0.02)
    smooth = 5 + torch.sin(2 * torch.pi * (ramp + 0.5) / 30)
    assert thick_slices(smooth, thickness, step).mean().item() == pytest.approx(5, rel=0.01)
    for axis in (-1, 1):
        moved = thick_slices(ramp.movedim(0, axis), thickness, step, axis)
        torch.testing.assert_close(moved.movedim(axis, 0), thick_slices(ramp, thickness, step))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kspace_noise((8, 8), -1.0, generator()), "sigma is -1"),
        (lambda: kspace_noise((8, 8), float("nan"), generator()), "sigma is nan"),
        (lambda: kspace_noise((8, 8), 1.0, generator(), 0.5), "factor is 0.5"),
        (
            lambda: kspace_crop(torch.ones(8, 8), 2, torch.zeros(3, 4, dtype=torch.complex64)),
            r"noise has shape \(3, 4\), the k-space block \(4, 4\)",
        ),
        (lambda: kspace_crop(torch.ones(4, 8, 8), (2.0,)), "factor has 1 entries"),
        (lambda: thick_slices(torch.ones(8, 4, 4), 0.5, 2), "thickness is 0.5 slices"),
        (lambda: thick_slices(torch.ones(8, 4, 4), 2, float("inf")), "step is inf slices"),
        (lambda: thick_slices(torch.ones(8, 4, 4), 2, 9), "step 9 leaves no slice of 8"),
        (lambda: thick_slices(torch.ones(8, 4), 2, 2), "axis -3 of 2"),
        (lambda: thick_slices(torch.ones(8, 4, 4).long(), 2, 2), "type int64"),
    ],
)
def test_mistakes_are_reported(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        call()
