"""Noise in the corners of magnitudes, where it is known."""

from __future__ import annotations

import pytest
import torch

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.mri import corner_noise


def disc(size: int = 64, slices: int = 8) -> torch.Tensor:
    """A disc of 400 in air, without noise."""
    place = torch.arange(size) - (size - 1) / 2
    body = (torch.hypot(place[:, None], place) < 0.35 * size).float() * 400
    return body.expand(slices, size, size).clone()


def complex_noise(like: torch.Tensor, sigma: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return sigma * torch.randn(*like.shape, 2, generator=generator)


@pytest.mark.parametrize("sigma", [2.0, 10.0])
def test_noise_of_a_magnitude_and_of_a_channel(sigma: float) -> None:
    """The smallest of four corners is less than the noise: by a fifth in the median."""
    real, imaginary = complex_noise(disc(), sigma).unbind(-1)
    magnitude = torch.hypot(disc() + real, imaginary)
    assert corner_noise(magnitude) == pytest.approx(0.8 * sigma, rel=0.12)
    assert corner_noise(disc() + real, magnitude=False) == pytest.approx(0.8 * sigma, rel=0.12)


def test_the_mean_of_air_and_slopes_do_not_count() -> None:
    """A magnitude whose k-space was cut down keeps the mean of its noise in air."""
    slope = torch.linspace(0, 10, 64)
    assert corner_noise(disc() + 12.0 + slope) == pytest.approx(0, abs=1e-6)


def test_without_air_there_is_no_noise() -> None:
    real, _ = complex_noise(disc(), 50.0).unbind(-1)
    assert corner_noise(disc()) == 0  # masked
    assert corner_noise(400 + real) == 0  # the body fills the image
    assert corner_noise(torch.rand(2, 6, 6)) == 0
    with pytest.raises(OperatorError, match="image has type int64"):
        corner_noise(torch.ones(2, 6, 6, dtype=torch.int64))
