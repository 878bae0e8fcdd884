"""k-space samples, and the moments of their noise."""

from __future__ import annotations

import math

import pytest
import torch

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri.kspace import (
    kspace_block,
    kspace_block_shape,
    kspace_noise,
    zero_fill,
)
from tests.helpers.kspace_images import SHAPES, bins_kept, generator, image_of


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


@pytest.mark.parametrize("factor", [1, 2.5, 4, (1.0, 4.0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_block_of_the_zero_filled_image_is_the_block(
    shape: tuple[int, int], factor: float | tuple[float, float]
) -> None:
    block = kspace_block(image_of(*shape), factor)
    again = kspace_block(zero_fill(block, shape), factor)
    torch.testing.assert_close(again, block, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("size", "factor", "kept"), [(256, 4, 64), (217, 4, 54), (181, 4, 45), (49, 49 / 11, 11)]
)
def test_samples_kept(size: int, factor: float, kept: int) -> None:
    assert kspace_block_shape(size, 256, (factor, 1)) == (kept, 256)


def test_block_larger_than_the_matrix() -> None:
    with pytest.raises(OperatorError, match="does not fit a matrix of 4 x 8"):
        zero_fill(torch.zeros(8, 8, dtype=torch.complex64), (4, 8))


def test_noise_is_white_in_the_block_and_nowhere_else() -> None:
    shape, sigma, count = (32, 40), 3.0, 2000
    noise = kspace_noise((count, *shape), sigma, generator(), 2, torch.float64)
    assert noise.shape == (count, 16, 20)
    variance = 2 * sigma**2 / (32 * 40)
    power = noise.abs().square().mean(dim=0) / variance
    assert (power - 1).abs().max() < 5 / math.sqrt(count)  # each bin, five standard errors
    for channel in (noise.real, noise.imag):
        assert channel.var().item() == pytest.approx(variance / 2, rel=0.01)
        assert abs(channel.mean().item()) < 5 * math.sqrt(variance / 2 / noise.numel())
    neighbours = (noise[:, 1:] * noise[:, :-1].conj()).mean().abs() / variance
    assert neighbours < 5 / math.sqrt(count * 15 * 20)
    assert abs((noise.real * noise.imag).mean().item()) < 5 * variance / math.sqrt(noise.numel())
    spectrum = torch.fft.fft2(zero_fill(noise[:1], shape), norm="forward").abs()
    outside = torch.ones(shape, dtype=torch.bool)
    rows, columns = (torch.from_numpy(bins_kept(n, 2)) for n in shape)
    outside[rows[:, None], columns] = False
    assert spectrum[0, outside].max() < 1e-15


def test_noise_depends_only_on_its_seed() -> None:
    shape = (2, 20, 24)
    assert torch.equal(kspace_noise(shape, 1, generator(5)), kspace_noise(shape, 1, generator(5)))
    assert not torch.equal(
        kspace_noise(shape, 1, generator(5)), kspace_noise(shape, 1, generator(6))
    )
    one, two = kspace_noise(shape, 1, generator(5)), kspace_noise(shape, 3, generator(5))
    torch.testing.assert_close(two, 3 * one)
    assert one.dtype == torch.complex64
    state = torch.get_rng_state()
    kspace_noise(shape, 1, generator(5))
    assert torch.equal(torch.get_rng_state(), state)
