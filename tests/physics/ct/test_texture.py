"""How fine the noise of a CT scan is."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.ct import noise_level, noise_texture


def soft(noise: Tensor) -> Tensor:
    return 40 + noise


def white(sigma: float = 15.0) -> Tensor:
    return sigma * torch.randn(4, 96, 80, generator=torch.Generator().manual_seed(0))


def smoothed(noise: Tensor, passes: int) -> Tensor:
    for _ in range(passes):
        noise = F.avg_pool2d(noise[:, None], 3, 1, 1)[:, 0]
    return noise


def test_white_noise_is_not_correlated() -> None:
    found = noise_texture(soft(white()))
    assert found.level == pytest.approx(15, rel=0.05)
    # The mean over 7 x 7 pixels is taken off, which correlates by -1/48; -0.05 measured, as pixels
    # are taken where the noise happens to be flat.
    assert found.correlation == pytest.approx(-1 / 48, abs=0.04)


def test_the_level_is_that_of_noise_level() -> None:
    hu = soft(smoothed(white(), 1))
    assert noise_texture(hu).level == noise_level(hu)


def test_smooth_noise_is_correlated() -> None:
    found = [noise_texture(soft(smoothed(white(), n))).correlation for n in (0, 1, 2, 6)]
    assert found[1] == pytest.approx(0.50, abs=0.03)  # 2/3, less what is taken off
    assert found[0] < found[1] < found[2] < found[3]
    assert found[3] > 0.75  # 0.79 measured


def test_the_frequency_is_in_cycles_per_mm() -> None:
    found = noise_texture(soft(white()))
    assert found.frequency(0.5) == pytest.approx(1 / math.sqrt(2) / math.pi / 0.5, rel=0.05)
    assert found.frequency(0.5) == 2 * found.frequency(1.0)


def test_a_scan_without_noise_is_refused() -> None:
    with pytest.raises(OperatorError, match="hu has no noise in soft tissue"):
        noise_texture(soft(torch.zeros(2, 64, 64)))
