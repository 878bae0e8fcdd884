"""Noise of a low-resolution scan, and realisations of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri import kspace_crop, kspace_noise, noise_level, scan_noise
from tests.helpers.kspace_images import generator


def ball(count: int = 4, size: int = 192) -> Tensor:
    """Slices of a smooth bright blob, whose k-space a quarter holds, in air."""
    place = torch.linspace(-1, 1, size, dtype=torch.float64)
    distance = torch.hypot(place[:, None], place)
    return (1000 * torch.sigmoid((0.5 - distance) / 0.04)).expand(count, size, size)


def noisy(sigma: float) -> Tensor:
    image = ball()
    return kspace_crop(
        image, 4, kspace_noise(tuple(image.shape), sigma, generator(), 4, image.dtype)
    )


@pytest.mark.parametrize("sigma", [20.0, 60.0])
def test_the_noise_of_the_air_is_measured(sigma: float) -> None:
    # Sixteen times less is measured, so the noise is a quarter. 1.05 and 1.02 measured: ringing.
    assert noise_level(noisy(sigma), 4) / (sigma / 4) == pytest.approx(1, abs=0.1)


def test_without_air_the_foreground_gives_a_bound() -> None:
    inside = noisy(40.0)[:, 56:136, 56:136]
    assert 8 < noise_level(inside, 4) < 40


def test_scans_with_signs_have_noise_of_mean_zero() -> None:
    low = scan_noise(ball(), 10.0, 4, generator=generator(), magnitude=False)
    assert noise_level(ball() + low, 4, magnitude=False) == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize("magnitude", [True, False])
def test_realisations_have_the_level_that_is_asked_for(magnitude: bool) -> None:
    image = ball()
    noise = scan_noise(image, 10.0, 4, generator=generator(), magnitude=magnitude)
    bright = image > 900
    assert noise[bright].std().item() == pytest.approx(10, rel=0.05)
    # In air a magnitude has a mean, sigma sqrt(pi / 2).
    mean = noise[:, :20].mean().item()
    assert mean == pytest.approx(10 * math.sqrt(math.pi / 2) if magnitude else 0, abs=0.8)


def test_too_small_slices_are_refused() -> None:
    with pytest.raises(OperatorError, match="too few to measure its noise"):
        noise_level(torch.ones(1, 16, 16), 4)
    with pytest.raises(OperatorError, match="give slices"):
        noise_level(torch.ones(16, 16), 4)
